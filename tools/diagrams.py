"""Write figures/diagrams.md and figures/gpt.svg: five published diagrams, and what holds instead.

    python -m tools.diagrams

The diagram of the model is read off a model, that of training off a run; see minigpt/diagram and
training_diagram.py. Each arrow of a published diagram of the model is looked for in ours.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt.diagram.figure import draw
from minigpt.diagram.folding import diagram_of
from minigpt.diagram.mermaid import mermaid
from minigpt.diagram.parts import Diagram, reachable
from minigpt.model import GPT, GPTConfig
from minigpt.variants.llama import Llama, LlamaConfig
from tools import training_diagram

FIGURES = Path(__file__).resolve().parent.parent / "figures"
PAGE, FIGURE = FIGURES / "diagrams.md", FIGURES / "gpt.svg"


@dataclass(frozen=True)
class Drawn:
    """A published diagram of the model.

    boxes: its words, in English -> titles of the boxes of ours that they cover; arrows: pairs.
    """

    where: str
    says: str
    boxes: dict[str, tuple[str, ...]]
    arrows: tuple[tuple[str, str], ...]


BLOCK = ("attn.c_attn", "split into heads", "q kᵀ / √D", "softmax", "att v", "join heads",
         "attn.c_proj", "mlp.c_fc", "gelu", "mlp.c_proj")  # fmt: skip
ATTENTION, MLP = BLOCK[:7], BLOCK[7:]
MODELS = (
    Drawn(
        "S0, lines 250-255 and again 299-304", "Four boxes in a row.",
        {"input sequence": ("ids",), "embedding layer": ("wte",), "Transformer": BLOCK,
         "output layer": ("lm_head",)},
        (("input sequence", "embedding layer"), ("embedding layer", "Transformer"),
         ("Transformer", "output layer")),
    ),
    Drawn(
        "S3, lines 309-316", "A row of four boxes, and a position box on a second way from the "
        "first to the second of them.",
        {"word-vector encoding": ("wte",), "position encoding": ("wpe",),
         "multi-head self-attention": ATTENTION, "feed-forward network": MLP,
         "output layer": ("lm_head",)},
        (("word-vector encoding", "multi-head self-attention"),
         ("multi-head self-attention", "feed-forward network"),
         ("feed-forward network", "output layer"), ("word-vector encoding", "position encoding"),
         ("position encoding", "multi-head self-attention")),
    ),
    Drawn(
        "S4, lines 1057-1065", "Seven boxes in a row.",
        {"input layer": ("ids",), "embedding layer": ("wte",), "position encoding": ("wpe",),
         "multi-head self-attention": ATTENTION, "feed-forward network": MLP,
         "output layer": ("lm_head",), "model output": ("lm_head",)},
        (("input layer", "embedding layer"), ("embedding layer", "position encoding"),
         ("position encoding", "multi-head self-attention"),
         ("multi-head self-attention", "feed-forward network"),
         ("feed-forward network", "output layer"), ("output layer", "model output")),
    ),
)  # fmt: skip

CONCEPTS = """flowchart TD
  lm["language model<br/>P(next token, given those before it)"]
  chain["autoregressive<br/>P(text) = the product of these, by the chain rule"]
  net["Transformer decoder<br/>minigpt.model.GPT"]
  loss["cross-entropy<br/>minigpt.functional.cross_entropy"]
  pre["pre-training<br/>minigpt.train.Trainer, on much text without labels"]
  fine["fine-tuning<br/>minigpt.train.Trainer, on the text of a task"]
  task["downstream task<br/>minigpt.generate.generate, or a score of given texts"]
  chain -->|is made of the steps of a| lm
  net -->|computes a| lm
  loss -->|measures a| lm
  pre -->|changes the weights of a| net
  pre -->|lowers the| loss
  fine -->|starts with the weights of| pre
  fine -->|lowers, on less text, the| loss
  task -->|uses the model of| fine
"""

HEAD = """# Five diagrams, corrected

Three of the [documents S0 to S4](../chapters/README.md#the-documents-s0-to-s4) draw GPT or its
training as Mermaid flowcharts, five in all. Here is what each draws, in words, what is wrong with
it, and a diagram that is right. `python -m tools.diagrams` writes this page; a test fails if it is
not what that command would write.

The diagrams of models are not drawn by hand. `python -m minigpt graph` runs a model once and reads
its boxes off the modules and its arrows off the tape that the backward pass walks. Take a residual
connection out of the code, and its arrow is gone.

## The model

"""

LEGEND = """
Thick arrows are residual connections, the dotted one is a table used twice. B is the batch, T the
time. Numbers of parameters are those of one block, and the frame says how many blocks there are;
with that, they sum to the model's. The steps from "split into heads" to "join heads" are one
primitive, `causal_self_attention`. They are drawn only because, run one by one on the arrays that
it was given, they give what it gave; that is also how the mask is known to be there.

As a figure, `python -m minigpt graph --out gpt.svg`:

![The default GPT: token and position embedding, two equal blocks of attention and MLP with residual connections, the last norm, the tied head and the loss](gpt.svg)

Another architecture, drawn by the same code, `diagram_of` of `minigpt/diagram/folding.py`: the Llama
of `minigpt/variants/llama.py`, with grouped queries and a gated MLP.

"""  # noqa: E501 - a link is not broken


def page() -> str:
    """The page as Markdown."""
    diagram = gpt()
    llama = diagram_of(Llama(LlamaConfig(), np.random.default_rng(0)))
    text = HEAD + _block(mermaid(diagram)) + LEGEND + _block(mermaid(llama))
    text += "\n## What the documents draw\n\n" + "\n".join(_judged(d, diagram) for d in MODELS)
    return text + _training() + _concepts()


def gpt() -> Diagram:
    """The diagram of the default GPT."""
    return diagram_of(GPT(GPTConfig(), np.random.default_rng(0)))


def wrong_arrows(drawn: Drawn, diagram: Diagram) -> list[tuple[str, str]]:
    """The arrows from which no way leads in our diagram, from none of the boxes to any."""
    flows = [edge for edge in diagram.edges if edge.kind != "tied"]
    names = {box.title: box.name for box in diagram.boxes}
    wrong = []
    for a, b in drawn.arrows:
        reached = set().union(*(reachable(flows, names[title]) for title in drawn.boxes[a]))
        if not reached & {names[title] for title in drawn.boxes[b]}:
            wrong.append((a, b))
    return wrong


def missing(drawn: Drawn, diagram: Diagram) -> list[str]:
    """The boxes of our diagram that no box of the other covers, each title once."""
    covered = {title for titles in drawn.boxes.values() for title in titles}
    titles = dict.fromkeys(box.title for box in diagram.boxes if box.kind != "sum")
    return [title for title in titles if title not in covered]


def _judged(drawn: Drawn, diagram: Diagram) -> str:
    arrows = [f"{a} → {b}" for a, b in drawn.arrows]
    wrong = wrong_arrows(drawn, diagram)
    n = sum(edge.kind == "residual" for edge in diagram.edges)
    lines = [f"### {drawn.where}\n", f"{drawn.says} The arrows: {'; '.join(arrows)}.\n"]
    if wrong:
        lines += [f"- **Drawn, but not in the model:** {a} → {b}. No way leads from "
                  f"{_code(drawn.boxes[a])} to {_code(drawn.boxes[b])}: a position is looked up "
                  "in a table of its own, and the two are added." for a, b in wrong]  # fmt: skip
    lines += [
        f"- **In the model, but not drawn:** {_code(missing(drawn, diagram))}.",
        f"- **Also not drawn:** the {n} residual connections, that the block is repeated, and that "
        "the head is the embedding again.",
        "- **Right:** the diagram of [the model](#the-model).",
    ]
    return "\n".join(lines) + "\n"


def _training() -> str:
    return f"""
### S4, lines 1046-1053

Six boxes in a row: preprocess the data → initialise the model → train → evaluate → optimise → end.

- Optimising is no stage that follows the evaluation: it is what each step of training ends in.
- There is no loop. Steps are repeated, and evaluations come between them.
- The evaluation decides nothing. It has to choose the model to keep, and then a third part of the
  text is needed to judge the one that was chosen.
- Preprocessing hides the trap. The tokenizer learns from the training part alone, after the split.
- Fine-tuning and use are missing.

Right, read off a small run: an arrow says which function was called next. What a function calls
inside counts as its own, and step 0 is evaluated before any training.

{_block(training_diagram.diagram())}"""


def _concepts() -> str:
    return f"""
### S0, lines 35-43

Seven ideas in a row: language model → Transformer architecture → generative pre-training →
autoregressive language model → pre-training stage → fine-tuning stage → downstream task.

- The arrows mean different things: "is computed by", "is trained by", "is a", "comes before". A
  reader cannot tell which.
- An autoregressive model is not what pre-training leads to. It is how the probability of a text is
  written, before anything is trained.
- A Transformer does not lead to generative pre-training; a recurrent network can be trained so too.
- The loss, which ties them together, is missing.

Right, with arrows that say what they mean, and the place in this package. This one is drawn by
hand: ideas leave no tape. A test looks up each name in it.

{_block(CONCEPTS)}"""


def _block(text: str) -> str:
    return f"```mermaid\n{text}```\n"


def _code(titles: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{title}`" for title in titles)


def main() -> int:
    if len(sys.argv) > 1:
        print(__doc__)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    PAGE.write_text(page(), "utf-8")
    draw(gpt(), FIGURE)
    print(f"written {PAGE.relative_to(FIGURES.parent)} and {FIGURE.relative_to(FIGURES.parent)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
