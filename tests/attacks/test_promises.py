"""Each promise of SECURITY.md has tests that were collected: a promise without one, or with one that is gone, fails."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FOLDERS = "test_model_folders.py::test_no_folder_of_"
SEEDS = "test_seeds.py::test_a_seed_is_read_or_refused_in_one_line"

PROMISES: dict[str, list[str]] = {
    "`tests/attacks/` holds an attack for each of these promises.": [
        "test_promises.py::test_every_promise_names_its_tests",
    ],
    "No pickle is opened and no code from a model's folder is run": [
        FOLDERS + "an_embedding_model_runs_code_or_opens_files_elsewhere",
        FOLDERS + "a_student_runs_code_or_opens_files_elsewhere",
        FOLDERS + "transformers_runs_code_or_opens_files_elsewhere",
        "test_model_folders.py::test_code_in_a_tokenizer_beside_a_gguf_file_is_neither_asked_for_nor_run",
    ],
    "`embedsmith/models/vetted.py` checks a folder before any library opens it:": [
        "test_sizes.py::test_a_configuration_that_asks_for_too_much_is_refused_before_anything_is_made",
    ],
    "every weight lies in a `*.safetensors` file of the folder itself;": [
        FOLDERS + "an_embedding_model_runs_code_or_opens_files_elsewhere",
    ],
    "modules, activations and attention come from a list; kernels are never fetched from a hub;": [
        FOLDERS + "transformers_runs_code_or_opens_files_elsewhere",
        "test_model_folders.py::test_a_cross_encoder_calls_no_function_that_its_folder_names",
    ],
    "a folder may hand only listed arguments to the functions that open it;": [
        FOLDERS + "an_embedding_model_runs_code_or_opens_files_elsewhere",
        "test_model_folders.py::test_a_folder_may_say_what_harms_nobody",
    ],
    "a tensor that is missing is an error that names it;": [
        "test_model_folders.py::test_a_missing_tensor_is_refused_by_its_name_however_a_model_is_opened",
        "test_model_folders.py::test_a_gguf_file_without_a_tensor_is_refused_by_its_name",
    ],
    "a configuration asks for no more layers than there are tensors": [
        "test_sizes.py::test_a_configuration_that_asks_for_too_much_is_refused_before_anything_is_made",
        "test_sizes.py::test_a_gguf_header_that_asks_for_too_much_is_refused_before_anything_is_made",
        "test_sizes.py::test_a_real_model_passes",
    ],
    "a tokenizer's ids go little beyond the number of its tokens.": [
        "test_sizes.py::test_an_id_far_beyond_the_number_of_tokens_is_refused",
    ],
    "A text with a token, a position or a type of token that a model has no row for is refused": [
        "test_tokens.py::test_a_text_with_a_token_beyond_the_embeddings_is_one_line",
        "test_tokens.py::test_a_text_longer_than_the_positions_is_one_line",
        "test_tokens.py::test_a_type_of_token_that_the_model_does_not_know_is_one_line",
    ],
    "A hub id is fetched first, without pickles and code, and then checked like a folder.": [
        "test_model_folders.py::test_the_fetched_files_of_a_hub_id_are_checked_as_a_folder_is",
    ],
    "Where bitsandbytes is installed, its import fetches no kernels from a hub": [
        "test_hub_kernels.py::test_nothing_is_fetched_nothing_is_said_and_the_package_is_there_for_others",
    ],
    "A recipe writes below its run folder and removes nothing elsewhere.": [
        "test_paths.py::test_the_command_line_refuses_it_and_leaves_what_is_there",
        "test_paths.py::test_nothing_is_removed_but_below_the_folder",
        "test_paths.py::test_what_removes_anything_goes_through_the_function_that_looks_where_it_lies",
    ],
    "It does not decide where a key goes.": ["test_keys.py::test_a_recipe_alone_gets_no_key"],
    "YAML is read without tags and aliases.": [
        "test_yaml.py::test_a_file_of_odd_yaml_is_one_line",
        "test_yaml.py::test_a_recipe_with_an_alias_is_refused_at_its_line",
    ],
    "Variables of the environment are filled in paths of data alone": [
        "test_variables.py::test_a_variable_in_a_text_that_is_no_path_is_refused_in_one_line",
        "test_variables.py::test_a_variable_that_may_hold_a_secret_is_refused_whether_it_is_set_or_not",
        "test_variables.py::test_a_run_writes_and_tells_the_name_and_never_the_value",
    ],
    "`OPENAI_API_KEY` goes to `api.openai.com` only": [
        "test_keys.py::test_a_key_is_sent_to_its_own_hosts_and_never_in_clear_over_a_network",
        "test_keys.py::test_a_host_on_the_command_line_gets_the_key_for_it_but_not_that_of_openai",
    ],
    "No key goes over plain `http` to another machine, follows a redirect, or is written into a file.": [
        "test_keys.py::test_a_key_is_sent_to_its_own_hosts_and_never_in_clear_over_a_network",
        "test_servers.py::test_a_redirect_is_not_followed",
        "test_servers.py::test_a_key_in_an_answer_is_stored_nowhere",
    ],
    "A line says to which host texts are sent.": [
        "test_keys.py::test_the_user_is_told_to_which_hosts_texts_are_sent_before_the_first_one_is",
    ],
    "Each request has one deadline, each answer a largest size.": [
        "test_servers.py::test_a_request_ends_at_its_deadline_whatever_comes_meanwhile",
        "test_servers.py::test_an_answer_larger_than_any_answer_is_refused_before_it_is_read",
    ],
    "A damaged file is an error of one line, and so is a file of another kind than its name says.": [SEEDS],
    "A small file that expands to gigabytes or to millions of rows is refused:": [
        "test_sources.py::test_a_short_parquet_file_that_stands_for_gigabytes_is_refused",
        "test_sources.py::test_a_short_parquet_file_that_stands_for_millions_of_values_is_refused",
    ],
    "Parquet, Arrow, YAML and compressed answers.": [
        "test_sources.py::test_a_short_saved_folder_that_stands_for_millions_of_values_is_refused",
        "test_yaml.py::test_an_alias_is_refused_at_its_line",
        "test_servers.py::test_a_compressed_answer_is_not_inflated",
    ],
    "Lengths and offsets of Arrow files are checked before use.": [SEEDS],
    "Our own run folders are checked like other files.": [
        "test_run_folders.py::test_a_manifest_with_another_value_is_refused",
        "test_run_folders.py::test_the_state_of_a_checkpoint_that_was_changed_is_refused",
    ],
    "Control characters in texts and names do not reach the terminal; pages and tables escape them.": [
        "test_terminal.py::test_no_command_prints_what_controls_a_terminal",
        "test_terminal.py::test_a_page_shows_controls_as_escapes",
    ],
    "A report loads nothing from the network.": [
        "test_pages.py::test_no_template_names_anything_to_load",
        "test_pages.py::test_no_text_in_a_page_loads_anything",
    ],
    "A command writes neither in the place of a link nor behind it": [
        "test_files.py::test_no_command_writes_in_the_place_of_a_link_or_behind_it",
        "test_files.py::test_what_the_user_has_where_a_command_writes_beside_its_target_stays",
    ],
}
"""How each promise begins, and what shows it: a test that fails where the code that keeps the promise is taken out."""


def _promises() -> list[str]:
    """Return the sentences of the promises, and the entries of their list."""
    text = (ROOT / "SECURITY.md").read_text().split("## What embedsmith promises")[1].split("\n## ")[0]
    found: list[str] = []
    for block in re.split(r"\n\n|\n(?=- )", text):
        words = re.sub(r"^\*\*\w+\.\*\* |^- ", "", " ".join(block.split()))
        found += [sentence for sentence in re.split(r"(?<=[.:]) (?=[A-Z`])", words) if sentence]
    return found[1:]  # the first one says what is opened


def test_every_promise_names_its_tests():
    unknown = [said for said in _promises() if not any(said.startswith(start) for start in PROMISES)]
    assert unknown == [], "a promise without a test"
    gone = [start for start in PROMISES if not any(said.startswith(start) for said in _promises())]
    assert gone == [], "tests of a promise that is made no longer"


def _names(tests: Iterable[str]) -> set[str]:
    """Return the names of tests without what they are called with."""
    return {test.partition("[")[0].removeprefix("tests/attacks/") for test in tests}


def test_the_tests_of_every_promise_are_collected(request: pytest.FixtureRequest):
    missing = {test for tests in PROMISES.values() for test in tests} - _names(
        item.nodeid for item in request.session.items
    )
    if missing:  # this run is of some files alone, or a test is gone
        files = sorted({f"tests/attacks/{test.partition('::')[0]}" for test in missing})
        words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=500)
        assert sorted(missing - _names(done.stdout.splitlines())) == [], done.stderr


def test_no_test_of_a_promise_is_left_out():
    marks = re.compile(r"@pytest\.mark\.(skip|xfail)")
    for test in {test for tests in PROMISES.values() for test in tests}:
        file, _, name = test.partition("::")
        above = (ROOT / "tests/attacks" / file).read_text().partition(f"def {name}(")[0].rpartition("\n\n\n")[2]
        assert not marks.search(above), test
