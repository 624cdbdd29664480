"""What is told about derivations: strict JSON, a page that stands alone, pictures of the errors."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from minigpt.verify.page import as_page
from minigpt.verify.pictures import heat_map, relative_errors, v_curve
from minigpt.verify.report import as_json, as_text, summary, verdict_of, wrong_arguments

ROW = {"argument": "x", "witness": "differences", "error": 0.5, "index": [0, 1], "claimed": 2.0,
       "measured": 1.0, "tolerance": 1e-8, "why": "rounding"}  # fmt: skip
FINE = ROW | {"argument": "w", "error": 1e-12, "index": []}
NOTHING = {"status": "holds", "error": "", "rows": [], "notes": [], "diagnosis": None,
           "printed": "", "kind": "vjp", "of": "f", "where": "a.py, line 3"}  # fmt: skip
X = np.array([[1.0, 1.0, -3.0], [0.5, 4.0, 1.0]])
STEPS = [0.1, 1e-5, 1e-12]


def claim(name, **values):
    return NOTHING | {"name": name} | values


@pytest.fixture
def report():
    """A right claim, a wrong one, and each kind of failure."""
    found = {"pattern": "factor", "words": "factor: it is 2 times too large.", "residual": 1e-15,
             "corrected": {"x": X.tolist(), "w": [7.0]}, "chapter": "11_layer_norm"}  # fmt: skip
    wrong = X.copy()
    wrong[1, 2] += 2
    details = [
        {"argument": "x", "shape": [2, 3], "claimed": wrong.tolist(), "measured": X.tolist(),
         "steps": STEPS, "true": [1e-3, 1e-11, 1e-5], "claim": [0.3, 0.3, 0.3]},
        {"argument": "w", "shape": [1], "claimed": [1.0], "measured": [1.0],
         "steps": STEPS, "true": [1e-3, 1e-11, 1e-5], "claim": [1e-3, 1e-11, 1e-5]},
    ]  # fmt: skip
    return {
        "file": "a<b>.py", "error": "", "notes": ["a cell was left out"], "printed": "hello",
        "claims": [
            claim("good", rows=[FINE], details=details[1:]),
            claim("bad", status="wrong", rows=[ROW, FINE], diagnosis=found, details=details),
            claim("odd", status="wrong", rows=[ROW | {"error": math.nan}], notes=["x: kink"]),
            claim("rude", status="error", error="a.py, line 5: rude: <it> raised", printed="bye"),
            claim("blank", status="not written", error="not written yet"),
        ],
    }  # fmt: skip


def strict(text):
    """JSON as the standard has it, so without NaN."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


# --- text and JSON ----------------------------------------------------------------------------


def test_the_record_gives_the_verdict_back(report):
    verdict = verdict_of(report["claims"][1])
    assert (verdict.claim, verdict.kind, verdict.holds) == ("bad", "vjp", False)
    assert verdict.rows[0].index == (0, 1)
    assert verdict_of(report["claims"][0]).holds


def test_the_wrong_arguments_are_those_beyond_tolerance_or_not_a_number(report):
    assert [wrong_arguments(c) for c in report["claims"]] == [[], ["x"], ["x"], [], []]


def test_the_text_tells_everything(report):
    text = as_text(report, seed=5)
    lines = text.splitlines()
    for line in (
        "good (vjp) holds", "bad (vjp) does not hold", "rude (vjp) fails: a.py, line 5: rude: "
        "<it> raised", "blank (vjp): not written yet", "note: x: kink", "note: a cell was left out",
        "what is wrong: factor: it is 2 times too large.", "derived in: chapters/11_layer_norm",
        "right values for x, in a draw with seed 5:", "  hello", "  bye",
        "a<b>.py: 5 derivations: 1 holds, 2 do not hold, 1 not written yet, 1 fails",
    ):  # fmt: skip
        assert line in lines
    assert "-3." in text.split("right values")[1]
    assert "right values for w" not in text
    (row,) = (line for line in lines if line.startswith("x ") and "5.0e-01" in line)
    assert "[0, 1]" in row


def test_the_summary_counts():
    holds = {"claims": [claim("a")]}
    assert summary(holds) == "1 derivation: 1 holds"
    assert summary({"claims": [claim("a"), claim("b")]}) == "2 derivations: 2 hold"


def test_the_json_is_strict_and_has_no_pictures(report):
    found = strict(as_json([report], exit_code=1))
    assert found["exit_code"] == 1
    assert found["files"][0]["file"] == "a<b>.py"
    claims = found["files"][0]["claims"]
    assert claims[1]["rows"][0] == ROW
    assert claims[2]["rows"][0]["error"] == "nan"
    assert not any("details" in c for c in claims)


# --- the page ---------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Every start tag with its attributes, and that what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(html):
    parser = Tags()
    parser.feed(html)
    assert parser.open == []
    return parser.found


def test_the_page_stands_alone(report):
    page = as_page([report])
    found = tags(page)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert not {tag for tag, _ in found} & {"script", "link", "img", "iframe", "object", "base"}
    links = [attrs["href"] for tag, attrs in found if tag == "a"]
    assert links == [f"#c0-{i}" for i in range(5)]
    assert {link[1:] for link in links} == {a["id"] for tag, a in found if tag == "section"}
    assert not any({"src", "srcset", "data"} & set(attrs) for _, attrs in found)
    assert "prefers-color-scheme: dark" in page


def test_the_page_escapes_what_the_file_says(report):
    page = as_page([report])
    assert "a&lt;b&gt;.py" in page
    assert "&lt;it&gt; raised" in page
    assert "<it>" not in page


def test_the_page_has_tables_diagnosis_and_pictures(report):
    page = as_page([report], seed=4)
    sections = re.findall(r"<section.*?</section>", page, re.S)
    good, bad, odd, rude, blank = sections
    assert "✓ holds" in good
    assert "does not hold" in bad
    assert "factor: it is 2 times too large." in bad
    assert "chapters/11_layer_norm" in bad
    assert '<span class="wrong">5.0e-01</span>' in bad
    assert '<span class="holds">1.0e-12</span>' in bad
    assert bad.count("heat map of the error") == bad.count("V-curve: error") == 2
    assert good.count("<polyline") == 1
    assert bad.count("<polyline") == 3  # two for the wrong argument
    assert "printed meanwhile" in rude
    assert 'class="says"' not in blank
    assert "seed 4" in page


def test_the_worst_entries_come_first(report):
    bad = re.findall(r"<section.*?</section>", as_page([report]), re.S)[1]
    worst = bad.split("The worst entries")[1]
    assert bad.count("The worst entries") == 1  # not for the argument that is right
    cells = re.findall(r"<td[^>]*>(.*?)</td>", worst)
    assert cells[:4] == ["[1, 2]", "3", "1", "5.0e-01"]
    assert cells[7] == "0.0e+00"


def test_blank_cells_are_explained(report):
    assert "Blank: not measured." not in as_page([report])
    report["claims"][0]["details"][0]["measured"] = [math.nan]
    assert as_page([report]).count("Blank: not measured.") == 2  # both claims share the detail


def test_without_entries_there_is_a_sentence_in_the_map_s_place(report):
    for key in ("claimed", "measured"):
        del report["claims"][0]["details"][0][key]
    good = as_page([report]).split("<section")[1]
    assert "(1,): no map of an array so large" in good
    assert "heat map of the error" not in good
    assert "<polyline" in good


def test_a_file_that_cannot_be_judged_has_a_page_too():
    empty = {"file": "b.py", "error": "b.py: no such file", "notes": [], "printed": "",
             "claims": []}  # fmt: skip
    page = as_page([empty])
    assert "b.py: no such file" in page
    tags(page)


# --- the pictures -----------------------------------------------------------------------------


def test_errors_are_shares_of_the_largest_entry():
    claimed, measured = np.array([1.0, 5.0, 2.0, np.nan]), np.array([1.0, 4.0, np.nan, 1.0])
    errors = relative_errors(claimed, measured)
    np.testing.assert_array_equal(errors, [0.0, 0.2, np.nan, np.inf])
    np.testing.assert_array_equal(relative_errors(np.zeros(2), np.zeros(2)), [0, 0])


def rectangles(svg):
    """(colour, title) of each cell, in order."""
    return re.findall(r'<rect (?:fill="(#\w+)"|class="none") [^>]*><title>(.*?)</title>', svg)


def lightness(colour):
    return sum(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_a_heat_map_has_a_cell_an_entry_that_tells_its_values():
    claimed = X.copy()
    claimed[1, 2] += 2
    measured = X.copy()
    measured[0, 0] = np.nan
    cells = rectangles(heat_map(claimed, measured, relative_errors(claimed, measured)))
    assert len(cells) == 6
    assert cells[0] == ("", "not measured")
    assert cells[5][1] == "[1, 2]: claimed 3, measured 1, error 5.0e-01"
    assert max(cells[1:], key=lambda cell: lightness(cell[0])) == cells[5]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 3)])
def test_a_heat_map_of_any_number_of_axes(shape):
    claimed = np.ones(shape)
    cells = rectangles(heat_map(claimed, 0 * claimed, relative_errors(claimed, 0 * claimed)))
    assert [re.match(r"\[.*?\]", title)[0] for _, title in cells] == [
        str(list(index)) for index in np.ndindex(shape)
    ]


def test_a_large_heat_map_keeps_the_worst_of_each_block():
    errors = np.full((100, 65), 1e-16)
    errors[57, 33] = 0.5
    cells = rectangles(heat_map(errors, errors, errors))
    assert len(cells) == 25 * 22
    assert [i for i, (_, title) in enumerate(cells) if title == "5.0e-01"] == [57 // 4 * 22 + 11]


def points(svg):
    return [[tuple(map(float, point.split(","))) for point in line.split()]
            for line in re.findall(r'points="(.*?)"', svg)]  # fmt: skip


def test_a_v_curve_is_logarithmic_both_ways():
    svg = v_curve([1e-1, 1e-4, 1e-7], {"claim": [1e-2, 1e-6, 1e-10]})
    ((a, b, c),) = points(svg)
    assert a[0] > b[0] > c[0]
    assert a[1] < b[1] < c[1]  # upwards the error grows
    assert math.isclose(a[0] - b[0], b[0] - c[0], abs_tol=0.2)
    assert math.isclose(b[1] - a[1], c[1] - b[1], abs_tol=0.2)


def test_a_v_curve_leaves_out_what_is_not_finite_and_keeps_the_rest_inside():
    svg = v_curve([1e-1, 1e-4, 1e-7], {"a": [np.nan, 0.0, 1e9], "b": [1e-3, 1e-3, 1e-3]})
    first, second = points(svg)
    height = int(re.search(r'height="(\d+)"', svg)[1])
    assert len(first) == 2
    assert all(0 < y < height for _, y in first + second)
    assert first[1][1] < second[0][1] < first[0][1]
    assert svg.index('class="claim"') < svg.index('class="true"')


def test_the_larger_an_error_the_lighter_its_cell():
    errors = 10.0 ** np.arange(-16, 1)
    light = [lightness(colour) for colour, _ in rectangles(heat_map(errors, errors, errors))]
    assert len(light) == 17
    assert light == sorted(set(light))
