"""Ablations: which recipes the cells are, what is made once, and what the table says."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import embedsmith
from embedsmith.data.examples import read_examples
from embedsmith.data.files import read_json, write_json
from embedsmith.errors import EmbedsmithError, RunError, SettingsError
from embedsmith.evaluation import contender
from embedsmith.evaluation.per_query import read_per_query
from embedsmith.mining.audit import audit
from embedsmith.mining.candidates import read_candidates
from embedsmith.mining.settings import SelectionSettings
from embedsmith.recipes.ablation.ablate import plan
from embedsmith.recipes.ablation.grid import Ablation, cells_of, read_ablation, rows_of, with_changes
from embedsmith.recipes.ablation.page import ablation_page, sweeps_of
from embedsmith.recipes.ablation.table import Row, in_markdown, table_of
from embedsmith.recipes.recipe import Recipe
from embedsmith.runs.scores import Score, ScoredData, read_scores, write_scores
from tests.cli.conftest import embedsmith_command as embedsmith_command
from tests.evaluation.test_compare import recipe_on, write_data
from tests.forks import Fork

pytestmark = pytest.mark.slow

ABLATIONS = Path(__file__).parents[3] / "recipes" / "ablations"


@pytest.fixture(scope="module")
def recipe(tiny_bert: Path, tmp_path_factory) -> Recipe:
    """Two stages on forty queries, mined by BM25."""
    data = write_data(tmp_path_factory.mktemp("data") / "animals")
    recipe = recipe_on(data, tiny_bert)
    stage = recipe.stages[0]
    stages = [stage.model_copy(update={"name": name}) for name in ("one", "two")]
    evaluation = recipe.evaluation.model_copy(update={"baselines": ["bm25"]})
    # The second teacher has vectors: training looks them up.
    mining = recipe.mining.model_copy(update={"teachers": ["bm25", str(tiny_bert)]})
    changes = {"stages": stages, "evaluation": evaluation, "mining": mining, "name": "tiny"}
    return recipe.model_copy(update=changes)


@pytest.fixture(scope="module")
def file(recipe: Recipe, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def ablation(file: Path) -> Ablation:
    return read_ablation(file, vary=["stages.1.hard_negatives=0,2"], seeds=2)


@pytest.fixture(scope="module")
def run(ablation: Ablation, tmp_path_factory) -> Path:
    return embedsmith.ablate(ablation, out=tmp_path_factory.mktemp("ablate") / "run").folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_a_grid_has_every_combination_with_every_seed(file: Path, recipe: Recipe):
    found = read_ablation(file, vary=["mining.method=naive,abs", "stages.0.steps=3,4,5"], seeds=2)
    cells = cells_of(found)
    assert len(cells) == 12
    assert list(found.rows)[:2] == ["method=naive, steps=3", "method=naive, steps=4"]
    assert {(c.recipe.mining.method, c.recipe.stages[0].steps, c.recipe.seed) for c in cells} == {
        (method, steps, seed) for method in ("naive", "abs") for steps in (3, 4, 5) for seed in (0, 1)
    }
    # Nothing but what was asked for differs from the recipe; mining draws with the cell's seed too.
    for cell in cells:
        back = with_changes(
            cell.recipe, {"mining.method": "naive", "stages.0.steps": 2, "seed": 0, "mining.mining_seed": 0}
        )
        assert back.model_copy(update={"name": recipe.name}) == recipe
        assert cell.recipe.mining.mining_seed == cell.seed
    assert len({cell.folder for cell in cells}) == 12


def test_an_ablations_file_has_rows_of_its_own(file: Path, tmp_path: Path):
    described = {
        "recipe": str(file.resolve()),
        "set": {"stages.0.steps": 7},
        "rows": {"single": {"stages": [{"name": "all", "steps": 5}]}, "double": {}},
        "seeds": 4,
    }
    path = tmp_path / "described.yaml"
    path.write_text(yaml.safe_dump(described, sort_keys=False))
    found = read_ablation(path)
    assert found.seeds == 4
    assert list(found.rows) == ["single", "double"]
    single, double = cells_of(found)[:2]
    assert [stage.steps for stage in single.recipe.stages] == [5]
    assert [stage.steps for stage in double.recipe.stages] == [7, 2]
    assert next(iter(read_ablation(path, vary=["seed=1,2"], seeds=1).rows)) == "single, seed=1"
    assert cells_of(read_ablation(path, set_=["stages.0.steps=9"]))[1].recipe.stages[0].steps == 9


@pytest.mark.parametrize("path", sorted(ABLATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ablation_of_the_repository_is_one(path: Path):
    found = read_ablation(path)
    planned = plan(found)
    assert len(planned) == len(found.rows) * found.seeds
    assert found.seeds == (1 if path.stem == "nv-embed-tiny" else 3)  # over two hours as it is
    # What the rows have in common is made once for all of them.
    for name in found.recipe.data:
        assert sum(f"candidates {name}" in one.makes for one in planned) <= len(found.rows)


def test_the_papers_tables_have_their_rows():
    rows = {path.stem: list(read_ablation(path).rows) for path in ABLATIONS.glob("*.yaml")}
    methods = ["naive", "shifted", "abs", "marginpos", "percpos"]
    assert rows["methods"][:5] == rows["methods-three-sets"] == methods
    assert rows["pooling-attention"][:2] == [
        "pooling=mean, attention=bidirectional",
        "pooling=mean, attention=causal",
    ]
    assert rows["stages"] == ["two stages", "single, in-batch on", "single, in-batch off", "reversed"]
    assert rows["labels"] == ["label-based", "example-based"]
    stages = {c.row: c.recipe.stages for c in cells_of(read_ablation(ABLATIONS / "stages.yaml"))}
    # All rows take as many steps; two of them end where another one begins.
    assert {sum(stage.steps for stage in own) for own in stages.values()} == {120}
    assert [stage.name for stage in stages["reversed"]] == ["all", "retrieval"]
    assert stages["reversed"][0] == stages["two stages"][1]


def test_what_a_recipe_leaves_open_stays_open(file: Path):
    recipe = Recipe.parse({"data": {"a": {"path": "x"}}, "mining": {"negatives": 3}}, where="recipe")
    changes = {"mining.teacher_settings.max_tokens": 9, "stages.0.steps": 5, "mining.depth": 7}
    found = with_changes(recipe, changes)
    assert found.mining.model_fields_set == {"negatives", "depth", "teacher_settings"}
    assert found.mining.teacher_settings.model_fields_set == {"max_tokens"}
    assert found.stages[0].model_fields_set == {"steps"}
    assert (found.mining.teacher_settings.max_tokens, found.stages[0].steps, found.mining.depth) == (9, 5, 7)


def test_other_data_takes_the_place_of_the_recipes(file: Path, tmp_path: Path):
    found = read_ablation(file, vary=["mining.method=naive,abs"], data=str(tmp_path / "beir" / "scifact"))
    assert {name: data.path for name, data in found.recipe.data.items()} == {"scifact": str(tmp_path / "beir/scifact")}


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("mining.metod=naive,abs", r'no setting "mining.metod": mining has no "metod" \(did you mean "method"\?\)'),
        ("minning.method=naive", r'a recipe has no "minning" \(did you mean "mining"\?\)'),
        ("data.animal.path=x,y", r'data has no "animal" \(did you mean "animals"\?\)'),
        ("stages.2.steps=1,2", r'stages has 2 entries, got "2"'),
        ("stages.steps=1,2", r'stages has 2 entries, got "steps"'),
        ("seed.a=1,2", r'no setting "seed.a": seed is 0'),
        ("mining.method=naive,abs,nave", r'mining.method=nave: recipe.mining: method: no method "nave"'),
        ("stages.0.steps=0,1", r"stages.0.steps=0: recipe.stages.0: steps: Input should be greater than 0"),
        ("mining.method", r"not NAME=VALUE,VALUE"),
        ("mining.ratio=[1", r"not a YAML value"),
        ("mining.method=naive", r"one row is no ablation"),
        ("mining.method=naive,naive", r'two rows are called "naive"'),
        ("stages.0.hard_negatives=1,2,true", r"rows 1 and yes are the same recipe"),
        ("mining.ratio=0.95,0.950", r'two rows are called "0.95"'),
    ],
)
def test_what_is_no_setting_or_no_value_is_refused_in_one_line(file: Path, vary: str, message: str):
    with pytest.raises(SettingsError, match=message) as error:
        read_ablation(file, vary=[vary])
    assert "\n" not in str(error.value)


def test_a_plan_says_what_is_made_once(ablation: Ablation):
    planned = {one.cell.name: one for one in plan(ablation)}
    first, other = planned["0, seed 0"], planned["2, seed 0"]
    assert first.makes == ["candidates animals", "stage one", "stage two"]
    assert other.makes == ["stage two"]
    assert other.finds == {"candidates animals": "0, seed 0", "stage one": "0, seed 0"}
    assert planned["0, seed 1"].makes == ["stage one", "stage two"]


def test_what_is_equal_is_made_once(ablation: Ablation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from embedsmith.mining import mine
    from embedsmith.training import train

    done: list[str] = []
    mine_candidates, train_stage = mine.mine_candidates, train.train_stage
    monkeypatch.setattr(mine, "mine_candidates", lambda *a, **k: (done.append("mine"), mine_candidates(*a, **k))[1])
    monkeypatch.setattr(
        train, "train_stage", lambda *a, **k: (done.append(f"stage {a[2].name}"), train_stage(*a, **k))[1]
    )
    monkeypatch.setattr(
        contender,
        "open_teacher",
        lambda name, *a, **k: (done.extend({name} & {"bm25"}), OPEN_TEACHER(name, *a, **k))[1],
    )
    once = ablation.model_copy(update={"seeds": 1})
    embedsmith.ablate(once, out=tmp_path / "run", shared=tmp_path / "shared")
    # The teacher is BM25 too: what was scored as a baseline is not scored again.
    assert sorted(done) == ["bm25", "mine", "stage one", "stage two", "stage two"]

    done.clear()
    embedsmith.ablate(ablation, out=tmp_path / "more", shared=tmp_path / "shared")
    assert sorted(done) == ["stage one", "stage two", "stage two"]


OPEN_TEACHER = contender.open_teacher


def test_a_cell_is_what_its_recipe_makes_alone(run: Path, ablation: Ablation, tmp_path: Path):
    last = cells_of(ablation)[-1]
    assert (last.row, last.seed) == ("2", 1)  # the one that takes most from the others
    alone = embedsmith.run(last.recipe, out=tmp_path / "alone").folder
    shared = run / last.folder
    assert contents(shared / "model") == contents(alone / "model") != {}
    assert read_json(shared / "scores.json") == read_json(alone / "scores.json")
    assert (shared / "mined/animals/negatives.jsonl").read_bytes() == (
        alone / "mined/animals/negatives.jsonl"
    ).read_bytes()
    steps = [[json.loads(line) for line in (one / "steps.jsonl").read_text().splitlines()] for one in (shared, alone)]
    for rows in steps:
        assert [(row["stage"], row["step"]) for row in rows] == [("one", 1), ("one", 2), ("two", 1), ("two", 2)]
    assert [row["loss"] for row in steps[0]] == [row["loss"] for row in steps[1]]


def test_the_table_holds_what_the_cells_scored(run: Path, ablation: Ablation):
    table = read_json(run / "table.json")
    assert [row["name"] for row in table["rows"]] == ["0", "2"]
    for row in table["rows"]:
        values = [
            read_per_query(run / cell.folder / "scores/animals/after.jsonl").values("ndcg@10").mean()
            for cell in cells_of(ablation)
            if cell.row == row["name"]
        ]
        assert row["seeds"] == pytest.approx(values)
        assert (row["mean"], row["deviation"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    first, other = table["rows"]
    assert (first["difference"], first["p"]) == (None, None)
    assert other["difference"]["mean"] == pytest.approx(other["mean"] - first["mean"])
    assert other["difference"]["low"] <= other["difference"]["mean"] <= other["difference"]["high"]
    assert table["detectable"] == other["difference"]["detectable"]
    assert table["queries"] == {"animals": 40}
    assert table["baselines"]["bm25"] == pytest.approx(1.0)

    lines = (run / "table.md").read_text().splitlines()
    assert lines[2].startswith("|  | ndcg@10 | ± seeds | before | difference | 95% interval | p | negatives |")
    assert any(line.startswith(f"| 0 | {first['mean']:.4f} |") for line in lines)


@pytest.mark.parametrize("other", ["fewer queries", "other passages", "another data set"])
def test_a_row_on_other_test_data_is_not_compared_query_by_query(
    run: Path, ablation: Ablation, tmp_path: Path, other: str
):
    copy = shutil.copytree(run, tmp_path / "copy")
    for cell in cells_of(ablation):
        if cell.row == "0":
            continue
        folder = copy / cell.folder
        found = read_json(folder / "scores.json")
        found["data"]["animals"]["content_hash"] = "0123456789abcdef"
        if other == "fewer queries":
            for path in (folder / "scores" / "animals").iterdir():
                path.write_text("".join(path.read_text().splitlines(keepends=True)[:7]))
        if other == "another data set":
            for part in ("data", "scores"):
                found[part]["plants"] = found[part].pop("animals")
        write_json(folder / "scores.json", found)
    table = table_of(copy, ablation)
    first, row = table.rows
    assert (row.is_paired, row.difference, row.p, row.is_significant) == (False, None, None, False)
    assert first.is_paired
    assert row.mean == pytest.approx(np.mean(row.seeds))
    assert table.detectable is None
    markdown = in_markdown(table)
    assert "Scored on other test queries or passages than 0, and so without difference, interval and p: 2." in markdown
    assert "by more than chance." not in markdown.splitlines()[-3]
    widths = {line.count("|") for line in markdown.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    json.dumps(table.plain(), allow_nan=False)
    ablation_page(copy, read_json(copy / "manifest.json"), table)


def test_what_could_not_be_compared_at_the_end_is_refused_before_the_first_cell(
    recipe: Recipe, tmp_path: Path, encoded: list[str]
):
    rows = {"one": {}, "two": {"stages.0.steps": 3}}
    silent = recipe.data["animals"].model_copy(update={"test_split": None})
    for wrong, said in (
        (Ablation(recipe=recipe, rows=rows, metric="ndgc@10"), "metric: ndgc@10 is not measured .did you mean"),
        (
            Ablation(recipe=recipe.model_copy(update={"data": {"animals": silent}}), rows=rows),
            "one, seed 0: none of its data is scored on retrieval",
        ),
        (
            Ablation(recipe=recipe, rows={**rows, "three": {"evaluation.baselines": ["./gone"]}}),
            "three, seed 0: ./gone: no such model",
        ),
    ):
        with pytest.raises(EmbedsmithError, match=said):
            embedsmith.ablate(wrong, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    assert encoded == []


def test_scores_of_labelled_data_stand_beside_those_of_retrieval(run: Path, ablation: Ablation, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "copy")
    for number, cell in enumerate(cells_of(ablation)):
        score = Score(model="model", metrics={"accuracy": number / 10, "f1": 0.5})
        about = ScoredData(task="classification")
        board = read_scores(copy / cell.folder).with_score("intents", "after", about, score)
        write_scores(copy / cell.folder, board)
    table = table_of(copy, ablation)
    assert [row.labelled for row in table.rows] == [{"intents accuracy": pytest.approx(v)} for v in (0.1, 0.2)]
    assert table.queries == {"animals": 40}
    assert "intents accuracy" in in_markdown(table).splitlines()[2]


def test_the_page_opens_offline_and_shows_every_row(run: Path):
    page = (run / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    for row in read_json(run / "table.json")["rows"]:
        assert f"{row['mean']:.4f}" in page
    assert page.count('class="dot"') == 2
    assert page.count('class="seed"') >= 4


@pytest.fixture(scope="module")
def swept(recipe: Recipe, tmp_path_factory) -> Path:
    """Ratios on queries that have two answers each, mined by BM25 and one step of training."""
    data = shutil.copytree(recipe.data["animals"].path, tmp_path_factory.mktemp("data") / "both")
    for qrels in (data / "qrels").iterdir():
        head, *rows = qrels.read_text().splitlines()
        more = [row.replace("-mat\t1", "-log\t1") for row in rows if row.endswith("-mat\t1")]
        qrels.write_text("\n".join([head, *rows, *more]) + "\n")
    short = recipe.stages[0].model_copy(update={"steps": 1})
    mining = recipe.mining.model_copy(update={"method": "percpos", "negatives": 3})
    sets = {"animals": recipe.data["animals"].model_copy(update={"path": str(data)})}
    small = recipe.model_copy(update={"data": sets, "stages": [short], "mining": mining})
    rows = {str(ratio): {"mining.ratio": ratio} for ratio in (1.5, 0.4, 1.0)}
    return embedsmith.ablate(
        Ablation(recipe=small, rows=rows, seeds=2), out=tmp_path_factory.mktemp("ab") / "run"
    ).folder


def test_rows_that_mine_differently_say_how_hard_and_how_false_their_negatives_are(swept: Path):
    table = read_json(swept / "table.json")
    assert table["hardness_by"] == "bm25"
    for row in table["rows"]:
        mined = swept / row["folder"] / "seed-0/mined/animals"
        examples = read_examples(mined / "negatives.jsonl")
        scores = [negative.score for example in examples for negative in example.negatives]
        assert row["mined"]["hardness"] == pytest.approx(np.mean(scores) if scores else None)
        assert row["mined"]["full rows"] == np.mean([len(example.negatives) == 3 for example in examples])
        assert row["mined"]["negatives"] == pytest.approx(len(scores) / len(examples))
        settings = SelectionSettings(method="percpos", negatives=3, ratio=row["changes"]["mining.ratio"])
        expected = audit(read_candidates(mined / "candidates"), {"": settings})[""].false_negative_rate
        assert row["mined"]["false negatives"] == expected
    loose, tight, _ = (row["mined"]["false negatives"] for row in table["rows"])
    assert loose > tight
    text = (swept / "table.md").read_text()
    assert "| p | negatives | full rows | hardness | false negatives |" in text
    assert "Hardness is the negatives' mean score by bm25; false negatives are" in text


def test_where_all_rows_mine_alike_nothing_is_said_of_the_negatives(run: Path):
    table = read_json(run / "table.json")
    assert (table["hardness_by"], [list(row["mined"]) for row in table["rows"]]) == (None, [["negatives"]] * 2)


def test_a_number_that_is_swept_is_drawn_as_a_line_with_its_spread(swept: Path, run: Path):
    page = (swept / "report.html").read_text()
    (line,) = re.findall(r'<polyline class="line" points="([^"]+)"', page)
    xs, ys = zip(*(map(float, point.split(",")) for point in line.split()), strict=True)
    rows = sorted(read_json(swept / "table.json")["rows"], key=lambda row: row["changes"]["mining.ratio"])
    ratios, means = [0.4, 1.0, 1.5], [row["mean"] for row in rows]
    assert page.count('<polygon class="band"') == any(row["deviation"] for row in rows)
    # Places are in proportion to the numbers, heights to the means, upside down.
    np.testing.assert_allclose(np.diff(xs) / (xs[2] - xs[0]), np.diff(ratios) / 1.1, atol=0.01)
    np.testing.assert_allclose(np.diff(ys) * (means[2] - means[0]), np.diff(means) * (ys[2] - ys[0]), atol=0.02)
    assert 'class="line"' not in (run / "report.html").read_text()


def test_a_grid_has_a_line_for_each_number_and_a_file_of_rows_for_each_family():
    made = {name: rows_of({}, axes) for name, axes in {
        "grid": {"mining.ratio": [0.8, 0.9, 1.0], "mining.method": ["percpos", "abs"]},
        "switch": {"student.append_eos": [True, False, None]},
        "two": {"mining.ratio": [0.8, 0.9]},
    }.items()}  # fmt: skip
    made["sweeps"] = read_ablation(ABLATIONS / "sweeps.yaml").rows
    found = {
        name: [
            (setting, shared, [x for x, _ in points])
            for setting, shared, points in sweeps_of(list(map(row_of, rows.values())))
        ]
        for name, rows in made.items()
    }
    assert found["grid"] == [
        ("mining.ratio", "mining.method: percpos", [0.8, 0.9, 1.0]),
        ("mining.ratio", "mining.method: abs", [0.8, 0.9, 1.0]),
    ]
    assert found["switch"] == found["two"] == []
    assert [setting for setting, *_ in found["sweeps"]] == ["mining.threshold", "mining.margin", "mining.ratio"]


def row_of(changes: dict) -> Row:
    """Return a row of which only the changes matter."""
    return Row("", "", changes, [0.5], {}, None, {}, {}, {}, 0.0, None, None)


def test_a_finished_ablation_is_refused_and_its_cells_are_runs(run: Path, ablation: Ablation):
    with pytest.raises(RunError, match="this run is finished already"):
        embedsmith.ablate(ablation, out=run)
    (found,) = embedsmith.compare(run / "cells/01-0/seed-0", run / "cells/02-2/seed-0")
    table = read_json(run / "table.json")
    assert found.difference.mean == pytest.approx(table["rows"][1]["seeds"][0] - table["rows"][0]["seeds"][0])


def test_an_error_names_the_cell(recipe: Recipe, tmp_path: Path):
    rows = {"good": {}, "bad": {"student.name": str(tmp_path / "none")}}
    with pytest.raises(EmbedsmithError, match=r"bad, seed 0: .*no such model folder"):
        embedsmith.ablate(Ablation(recipe=recipe, rows=rows, seeds=1), out=tmp_path / "run")


def test_one_seed_says_so_and_models_are_given_up_where_nobody_wants_them(recipe: Recipe, tmp_path: Path):
    rows = {"one": {"stages.1.steps": 1}, "two": {}}
    small = Ablation(recipe=recipe, rows=rows, seeds=1, keep_models=False)
    folder = embedsmith.ablate(small, out=tmp_path / "run").folder
    assert not list(folder.rglob("*.safetensors"))
    assert (folder / "cells/02-two/seed-0/scores/animals/after.jsonl").is_file()
    assert "with one seed they say nothing about another training run" in (folder / "table.md").read_text()


def test_a_killed_ablation_goes_on_with_the_same_command(file: Path, ablation: Ablation, run: Path, tmp_path: Path):
    words = ["ablate", file, "--vary", "stages.1.hard_negatives=0,2", "--seeds", 1, "--out", tmp_path / "run"]
    fork = Fork("from embedsmith.cli.main import main; main()", *words)
    cell = tmp_path / "run" / "cells/02-2/seed-0"
    while fork.process.is_alive() and not (cell / "manifest.json").is_file():
        time.sleep(0.01)
    fork.process.kill()
    done = fork.ended()
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "run/table.json").exists()
    first = (tmp_path / "run/cells/01-0/seed-0/manifest.json").stat().st_mtime_ns
    embedsmith.ablate(ablation.model_copy(update={"seeds": 1}), out=tmp_path / "run")
    assert (tmp_path / "run/cells/01-0/seed-0/manifest.json").stat().st_mtime_ns == first
    for found in (tmp_path / "run").rglob("*.partial"):
        raise AssertionError(found)
    expected, found = (read_json(folder / "table.json") for folder in (run, tmp_path / "run"))
    assert [row["seeds"] for row in found["rows"]] == [row["seeds"][:1] for row in expected["rows"]]


def test_the_command_lists_the_cells_and_carries_them_out(embedsmith_command, file: Path, run: Path, tmp_path: Path):
    words = ["ablate", file, "--vary", "stages.1.hard_negatives=0,2", "--seeds", 2, "--out", tmp_path / "run"]
    done = embedsmith_command(*words, "--dry-run", "--json")
    assert done.code == 0
    assert len(done.json["cells"]) == 4
    assert done.json["makes"] == {"candidates animals": 1, "stage one": 2, "stage two": 4}
    assert not (tmp_path / "run").exists()
    done = embedsmith_command(*words, "--dry-run")
    assert "2, seed 0: makes stage two; takes candidates animals, stage one" in done.out

    done = embedsmith_command(*words, "--json", "--shared", run / "shared")
    assert done.code == 0
    assert [row["name"] for row in done.json["rows"]] == ["0", "2"]
    assert "cells: 4 of 4" in done.err
    done = embedsmith_command("ablate", file, "--vary", "minin.method=a,b", "--out", tmp_path / "other")
    assert (done.code, done.error) == (2, 'no setting "minin.method": a recipe has no "minin" (did you mean "mining"?)')
