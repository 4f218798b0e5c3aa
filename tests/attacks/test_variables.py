"""`${NAME}` in a recipe: only paths of data hold it, and its value is found in nothing that a run writes or tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from embedsmith.errors import InputError, SettingsError
from embedsmith.recipes.recipe import Recipe, read_recipe
from embedsmith.variables import Place, Written, filled
from tests.cli.conftest import embedsmith_command as embedsmith_command

MARK = "marker-7f3a"
PATHS = {
    "data.a.path",
    "data.a.corpus",
    "data.a.exclude_qrels.0",
    "data.a.exclude_ids",
    "data.a.against.0",
    "data.a.convert.labels",
    "data.a.queries",
}


def texts_of(annotation: Any, place: str) -> Iterator[tuple[str, bool]]:
    """Yield the place of every text that settings of a type can hold, and whether it is a path."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from texts_of(arguments[0], place)
    elif origin in (Union, UnionType):
        for member in arguments:
            yield from texts_of(member, place)
    elif origin in (list, tuple):
        yield from texts_of(arguments[0], f"{place}.0")
    elif origin is dict:
        yield from texts_of(arguments[1], f"{place}.a")
    elif origin is Literal or annotation is NoneType:
        return
    elif issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from texts_of(field.annotation, f"{place}.{name}".lstrip("."))
    elif issubclass(annotation, str):
        yield place, annotation is Place


def with_text(place: str, text: str) -> dict[str, Any]:
    """Return the plain values of a recipe with one text in one place."""
    values: Any = text
    for key in reversed(place.split(".")):
        values = [values] if key == "0" else {key: values}
    data = values.setdefault("data", {}).setdefault("a", {})
    data.setdefault("path", "x")
    if "queries" in data:
        data["format"] = "documents"
    if "convert" in data:
        data["convert"]["task"] = "pairs" if "positive_labels" in place else "classification"
    return values


TEXTS = dict(texts_of(Recipe, ""))


def test_the_paths_of_a_recipe_are_known():
    assert {place for place, is_path in TEXTS.items() if is_path} == PATHS
    assert len(TEXTS) > 25
    assert {"student.name", "stages.0.name", "mining.teachers.0", "data.a.instruction"} <= TEXTS.keys()


@pytest.mark.parametrize("place", sorted(PATHS))
def test_a_path_is_kept_as_it_is_written_and_filled_where_it_is_opened(place: str, monkeypatch):
    monkeypatch.setenv("SETS", f"/{MARK}")
    recipe = Recipe.parse(with_text(place, "${SETS}/x-${SETS}"), where="recipe")
    again = Recipe.parse(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))), where="recipe")
    for one in (recipe, again, recipe.model_copy(), Recipe.parse(recipe.model_dump(), where="recipe")):
        assert MARK not in one.model_dump_json() + str(one.model_dump()) + repr(one)
        assert "${SETS}/x-${SETS}" in one.model_dump_json()
        assert f"/{MARK}/x-/{MARK}" in filled(one).model_dump_json()
        assert one.fingerprint() == recipe.fingerprint()
    monkeypatch.setenv("SETS", "/elsewhere")
    assert Recipe.parse(with_text(place, "${SETS}/x-${SETS}"), where="recipe").fingerprint() == recipe.fingerprint()


@pytest.mark.parametrize("place", sorted(TEXTS.keys() - PATHS - {"name"}))
def test_a_variable_in_a_text_that_is_no_path_is_refused_in_one_line(place: str, monkeypatch):
    monkeypatch.setenv("SETS", MARK)
    with pytest.raises(SettingsError, match=r"\$\{SETS\}") as caught:
        Recipe.parse(with_text(place, "a${SETS}"), where="recipe.yaml")
    assert str(caught.value).startswith("recipe.yaml")
    # The last name that is no number.
    assert [part for part in place.split(".") if part != "0"][-1] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert MARK not in f"{caught.value} {caught.value.hint}"


def test_a_title_is_shown_as_it_stands():
    assert Recipe.parse(with_text("name", "of ${SETS}"), where="recipe").name == "of ${SETS}"


def test_labels_that_stand_in_the_recipe_itself_are_no_path():
    with pytest.raises(SettingsError, match=r"convert\.labels: \$\{SETS\} in a text that is no path"):
        Recipe.parse(with_text("data.a.convert.labels", "0=${SETS},1=b"), where="recipe")


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "client_secret", "Db_Password"])
@pytest.mark.parametrize("place", sorted(PATHS))
def test_a_variable_that_may_hold_a_secret_is_refused_whether_it_is_set_or_not(place: str, name: str, monkeypatch):
    for value in (None, MARK):
        if value:
            monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError, match=f"{name} may hold a secret") as caught:
            Recipe.parse(with_text(place, f"x/${{{name}}}/y"), where="recipe.yaml")
        assert MARK not in str(caught.value)


def test_a_value_that_looks_like_a_variable_is_not_filled_again(monkeypatch):
    monkeypatch.setenv("A", "${B}")
    monkeypatch.setenv("B", MARK)
    recipe = Recipe.parse(with_text("data.a.path", "${A}/x"), where="recipe")
    assert filled(recipe).data["a"].path == filled(filled(recipe)).data["a"].path == "${B}/x"


@pytest.mark.parametrize(
    ("value", "text", "notes"),
    [
        ("/sets", "/sets/nq/corpus.jsonl:3: no text; '/sets/nq'", "${S}/nq/corpus.jsonl:3: no text; '${S}/nq'"),
        ("/sets", "file:///sets/nq, /home/sets, /sets2, /sets-old", "file://${S}/nq, /home/sets, /sets2, /sets-old"),
        ("/sets/", "/sets/nq and /sets", "${S}/nq and ${S}"),
        ("sets", "sets/nq: no subsets, my/sets", "${S}/nq: no subsets, my/sets"),
        ("/", "a/b /nq", "a/b /nq"),
    ],
)
def test_a_text_names_the_variable_again(value: str, text: str, notes: str, monkeypatch):
    monkeypatch.setenv("S", value)
    assert Written(Recipe.parse(with_text("data.a.path", "${S}/nq"), where=""))(text) == notes


ANIMALS = ["cat", "dog", "owl", "bat", "eel", "ape"]
PLACES = ["mat", "log", "tree", "lake"]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Data of every kind that a recipe can have."""
    folder = tmp_path / MARK
    pairs = [
        {"query": f"find the {animal} of the {place}", "positive": f"the {animal} is on the {place}"}
        for animal in ANIMALS
        for place in PLACES
    ]
    jsonl(folder / "pairs.jsonl", pairs)
    jsonl(folder / "more.jsonl", [{"_id": f"m{n}", "text": f"a lake without a {a}"} for n, a in enumerate(ANIMALS)])
    jsonl(folder / "held-out.jsonl", pairs[:3])
    (folder / "ids.txt").write_text("m1\n")
    beir = folder / "beir"
    jsonl(beir / "corpus.jsonl", [{"_id": f"d{n}", "text": row["positive"]} for n, row in enumerate(pairs)])
    jsonl(beir / "queries.jsonl", [{"_id": f"q{n}", "text": row["query"]} for n, row in enumerate(pairs)])
    (beir / "qrels").mkdir()
    for split, rows in (("train", range(12)), ("test", range(12, 24))):
        lines = "".join(f"q{n}\td{n}\t1\n" for n in rows)
        (beir / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    jsonl(folder / "texts.jsonl", [{"text": r["positive"], "label": n // 4} for n, r in enumerate(pairs)])
    for split in ("train", "test"):
        jsonl(
            folder / f"intents/{split}.jsonl",
            [{"text": f"{split} {p}", "label": ANIMALS[n % 2]} for n, p in enumerate(PLACES)],
        )
    alike = [{"sentence1": r["query"], "sentence2": r["positive"], "label": n % 2} for n, r in enumerate(pairs)]
    jsonl(folder / "alike.jsonl", alike)
    (folder / "labels.yaml").write_text("".join(f"{n}: {animal}\n" for n, animal in enumerate(ANIMALS)))
    jsonl(
        folder / "examples.jsonl",
        [
            {"query_id": f"e{n}", "query": r["query"], "positives": [{"id": f"d{n}", "text": r["positive"]}]}
            | {"negatives": [{"id": f"d{n - 1}", "text": pairs[n - 1]["positive"]}]}
            for n, r in enumerate(pairs)
        ],
    )
    code = folder / "code"
    code.mkdir()
    for animal in ANIMALS:
        text = "".join(
            f'def find_{animal}_{place}():\n    """Find the {animal} on the {place}."""\n    return "{animal}{place}"\n'
            for place in PLACES
        )
        (code / f"{animal}.py").write_text(text)
    (code / "broken.py").write_text("def (:\n")
    return folder


RECIPE = """
data:
  pairs: {path: "${SETS}/pairs.jsonl", corpus: "${SETS}/more.jsonl", exclude_ids: "${SETS}/ids.txt",
          against: ["${SETS}/held-out.jsonl"], test_split: null}
  beir: {path: "${SETS}/beir", exclude_qrels: ["${SETS}/beir/qrels/test.tsv"]}
  clean: {path: "${SETS}/beir", against: ["${SETS}/held-out.jsonl"], test_split: null}
  whole: {path: "${FILE}", test_split: null}
  texts: {path: "${SETS}/texts.jsonl", convert: {task: classification, labels: "${SETS}/labels.yaml", negatives: 2},
          test_split: null}
  scored: {path: "${SETS}/intents", convert: {task: classification, negatives: 1}, mined: false}
  alike: {path: "${SETS}/alike.jsonl", convert: {task: pairs, negatives: 1}, mined: false, test_split: null}
  mine: {path: "${SETS}/texts.jsonl", convert: {task: clustering, negatives: 2}, test_split: null, mined: false}
  examples: {path: "${SETS}/examples.jsonl", format: examples, against: ["${SETS}/held-out.jsonl"]}
  code: {path: "${SETS}/code", format: code}
mining: {teachers: [bm25], negatives: 2, depth: 8}
student: {name: STUDENT, pooling: mean}
stages: [{steps: 2, batch_size: 4, in_batch: true}]
evaluation: {before: false, baselines: [bm25]}
"""


@pytest.fixture
def recipe(tmp_path: Path, sets: Path, tiny_bert: Path, monkeypatch) -> Path:
    """A recipe's file whose data lie where two variables say."""
    monkeypatch.setenv("SETS", str(sets))
    monkeypatch.setenv("FILE", str(sets / "pairs.jsonl"))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("STUDENT", str(tiny_bert)))
    return path


def assert_unmarked(folder: Path) -> None:
    """Assert that neither the names nor the content of what lies below a folder hold the value of a variable."""
    for path in folder.rglob("*"):
        assert MARK not in str(path.relative_to(folder))
        assert not path.is_file() or MARK.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_run_writes_and_tells_the_name_and_never_the_value(recipe: Path, tmp_path: Path, embedsmith_command):
    out = tmp_path / "run"
    for words in (["--dry-run"], ["--out", out], ["--out", out]):
        done = embedsmith_command("train", recipe, *words)
        assert done.code == (2 if words[0] == "--out" and "finished already" in done.err else 0), done.err
        assert MARK not in done.out + done.err
    assert "finished already" in done.err
    assert_unmarked(out)
    assert "${SETS}/beir" in (out / "recipe.yaml").read_text()
    assert "${FILE}" in (out / "manifest.json").read_text()
    removed = [json.loads(line) for line in (out / "data/pairs/clean.jsonl.removed.jsonl").read_text().splitlines()]
    assert {(row["data"], row["place"]) for row in removed} == {
        ("${SETS}/held-out.jsonl", f"${{SETS}}/pairs.jsonl:{n}") for n in (1, 2, 3)
    }


@pytest.mark.slow
def test_an_ablation_writes_and_tells_the_name_and_never_the_value(recipe: Path, tmp_path: Path, embedsmith_command):
    vary = ["--vary", "mining.method=naive,percpos", "--seeds", 1]
    for words in (["--dry-run", "--out", tmp_path / "none"], ["--out", tmp_path / "run"]):
        done = embedsmith_command("ablate", recipe, *vary, *words)
        assert done.code == 0, done.err
        assert MARK not in done.out + done.err
    assert_unmarked(tmp_path / "run")


@pytest.mark.parametrize("name", ["SETS", "FILE"])
@pytest.mark.parametrize("command", ["train", "train --dry-run", "ablate --vary seed=1,2", "ablate --dry-run"])
def test_a_variable_that_is_not_set_is_told_before_any_work(
    name: str, command: str, recipe: Path, tmp_path: Path, embedsmith_command, monkeypatch
):
    for unset in (lambda: monkeypatch.setenv(name, ""), lambda: monkeypatch.delenv(name)):
        unset()
        word, *options = command.split()
        if options == ["--dry-run"] and word == "ablate":
            options += ["--vary", "seed=1,2"]
        done = embedsmith_command(word, recipe, "--out", tmp_path / "run", *options)
        assert done.code == 2
        assert f"{name} is not set, in ${{{name}}}" in done.error
        assert f"hint: export {name}=FOLDER" in done.err
        assert not (tmp_path / "run").exists()


BREAKS = {
    "pairs.jsonl": "{broken",
    "more.jsonl": '{"text": 3}\n',
    "held-out.jsonl": "{broken",
    "ids.txt": "nobody\n",
    "beir/corpus.jsonl": "{broken",
    "beir/qrels/test.tsv": "a\tb\n",
    "texts.jsonl": "{broken",
    "labels.yaml": "[",
    "examples.jsonl": "{broken",
}


@pytest.mark.parametrize("how", ["broken", "missing", "a folder"])
@pytest.mark.parametrize("file", BREAKS)
def test_errors_name_the_variable(file: str, how: str, recipe: Path, sets: Path, tmp_path: Path, embedsmith_command):
    (sets / file).unlink()
    if how == "broken":
        (sets / file).write_text(BREAKS[file])
    elif how == "a folder":
        (sets / file).mkdir()
    for words in (["--out", tmp_path / "run"], ["--dry-run"]):
        done = embedsmith_command("train", recipe, *words)
        assert done.code, done.out
        assert MARK not in done.out + done.err
        assert "${SETS}" in done.err.partition("error: ")[2]
    if (tmp_path / "run").exists():
        assert_unmarked(tmp_path / "run")


@pytest.fixture(scope="module")
def place_of_the_cut(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cut") / "run"


@pytest.fixture
def cut(place_of_the_cut: Path, recipe: Path, tmp_path: Path, embedsmith_command, monkeypatch) -> Path:
    """A copy of a run that was killed before training: what was converted and cleaned lies in it."""
    if not place_of_the_cut.exists():
        with monkeypatch.context() as patched:
            patched.setattr("embedsmith.recipes.run.train_into", lambda *_, **__: (_ for _ in ()).throw(OSError("cut")))
            assert embedsmith_command("train", recipe, "--out", place_of_the_cut).code == 1
    return Path(shutil.copytree(place_of_the_cut, tmp_path / "run"))


@pytest.mark.parametrize("change", [None, *sorted({*BREAKS} - {"ids.txt"}), "code/cat.py"])
def test_a_run_goes_on_where_the_data_lie_elsewhere_and_not_with_other_data(
    change: str | None, cut: Path, recipe: Path, sets: Path, tmp_path: Path, embedsmith_command, monkeypatch
):
    """What was converted and cleaned is of the data as they were."""
    other = tmp_path / "elsewhere" / MARK
    shutil.copytree(sets, other)
    if change == "code/cat.py":
        (other / change).write_text((other / change).read_text().replace("mat", "tub"))
    elif change:
        text = (other / change).read_text()
        (other / change).write_text(text.replace("cat", "cow").replace("q12\td12", "q12\td13"))
        assert (other / change).read_text() != text
    monkeypatch.setenv("SETS", str(other))
    monkeypatch.setenv("FILE", str(other / "pairs.jsonl"))
    done = embedsmith_command("train", recipe, "--out", cut)
    if change is None:
        assert done.code == 0, done.err
    else:
        assert done.code == 2
        assert "has changed since this run began" in done.error
    assert MARK not in done.out + done.err
    assert_unmarked(cut)


def test_a_program_gets_errors_that_name_the_variable(recipe: Path, sets: Path, tmp_path: Path):
    from embedsmith.recipes.run import run_recipe

    (sets / "pairs.jsonl").write_text("{broken")
    with pytest.raises(InputError, match=r"\$\{SETS\}/pairs\.jsonl:1: broken JSON") as caught:
        run_recipe(read_recipe(recipe), out=tmp_path / "run")
    assert MARK not in f"{caught.value} {caught.value.hint}"
