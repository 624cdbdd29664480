"""How the page of an explanation looks, and the words that tell how to read it."""

STYLE = """
:root { --cold: 0, 114, 178; --warm: 213, 94, 0; }
@media (prefers-color-scheme: dark) { :root { --cold: 99, 180, 234; --warm: 255, 148, 105; } }
h3 { margin-top: 1.5rem; }
.tok { font-family: ui-monospace, monospace; unicode-bidi: isolate; white-space: pre; }
.hot { background: rgba(var(--warm), calc(var(--p) * .55)); }
.text { font-size: 1.3rem; line-height: 1.9; }
.text .tok { padding: 0 .08em; margin-right: 1px; border-radius: 3px; line-height: 1.5;
  border-bottom: 1px solid var(--line); display: inline-block; max-width: 100%;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.bars { display: grid; grid-template-columns: max-content minmax(4rem, 24rem) max-content;
  gap: .3rem .8rem; align-items: center; }
.bar { background: var(--panel); } .bar div { background: var(--blue); height: 1.1rem; }
.alt { display: inline-block; margin-right: .9rem; white-space: nowrap; color: var(--soft);
  font-size: .9rem; }
.alt .tok { color: var(--ink); } .alt.right, .alt.right .tok { color: var(--good);
  font-weight: 600; }
table.tokens td.hot { padding-left: .6rem; padding-right: .4rem; } .alts { min-width: 20rem; }
table.lens { width: 100%; } table.lens th, table.lens td { padding: .25rem .5rem;
  border: 1px solid var(--line); }
.cell { background: rgba(var(--cold), calc(var(--p) * .4)); min-width: 4.5rem; }
.cell small { display: block; white-space: nowrap; opacity: .8; }
.cell.right { box-shadow: inset 4px 0 var(--good); } .cell.right .tok { font-weight: 700; }
.stay { position: sticky; left: 0; background: var(--page); }
.mean td { font-weight: 600; }
.heads { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr));
  gap: .8rem 1.2rem; }
.heads figure { cursor: zoom-in; } .heads figure:focus { position: fixed; inset: 2vh 4vw;
  z-index: 2; margin: 0; padding: 1rem; max-width: none; background: var(--page); outline: none;
  border-radius: 8px; box-shadow: 0 0 0 100vmax rgba(0, 0, 0, .6); cursor: auto;
  display: flex; flex-direction: column; gap: .5rem; align-items: center; }
svg.map { width: 100%; display: block; } figure:focus svg.map { flex: 1; min-height: 0; }
svg.map text { font: 7px ui-monospace, monospace; } svg.map rect { fill: var(--blue); }
svg.map .seen { fill: var(--panel); } svg.map image { image-rendering: pixelated; }
""".strip()

HOW_TO_READ = """
<details><summary>How to read this page</summary>
<p>The model reads the text one token at a time. At each position it gives every token a probability
to come next. The nats of a token are minus the logarithm of the probability that it was given, so 0
if it was certain, 0.69 at one half, 2.3 at a tenth; rank 1 means that no token was likelier. What
is written here was computed from all tokens up to that position, and none after it.</p>
<p>␣ is a space, \\n the end of a line, and \\xe4 a byte that is a part of a character.</p>
<p>The logit lens takes the residual stream after each block and puts it through the last norm and
the head, as if the model ended there. Only the last column was trained to be read in this way: an
early column that makes no sense does not show that nothing was computed by then. In a model that
reads and predicts with one table, the first column mostly repeats the token that was read.</p>
<p>A head's map shows where it looks. It does not show what is carried from there, nor whether
anything later uses it: a map is no explanation of a prediction. The distance is the mean over all
rows of the number of tokens between the two, weighted; the entropy likewise, and a head that shares
its weight evenly among n tokens has ln n nats.</p></details>
""".strip()
