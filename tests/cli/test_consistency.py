"""The same thing has the same name, short form, default and help in every command; every help ends with examples that parse."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict

import pytest

from melcodec.cli._examples import EXAMPLES, walk_commands
from melcodec.cli.main import whole_command

COMMANDS = dict(walk_commands(whole_command()))
LEAVES = {name: command for name, command in COMMANDS.items() if not hasattr(command, "commands")}
# options whose help or default differs for a reason
OTHER_HELP = {
    "--output": "an output file, a folder, or either",
    "--to": "each command has its own formats",
    "--init": "a checkpoint or a vocoder",
    "--num-workers": "those of a sweep are trainings",
    "--preset": "each kind of training has its own",
    "--seconds": "of a sample, its prompt included",
    "--prior": "evaluate reports its bits, encode and decode compress with it",
}
OTHER_DEFAULT = {
    "--output": "where a command can choose one",
    "--to": "each command has its own formats",
    "--num-workers": "trainings run one after the other unless asked otherwise",
    "--vocoder": "the settings of a run say it, too",
    "--preset": "each kind of training has its own",
    "--seconds": "the figures of bench are of 10 s",
}


def options():
    """(command, option) of every option."""
    for name, command in LEAVES.items():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                yield name, parameter


def differing(value, exceptions):
    """Options that have several of what ``value`` gives: {name: {value: [commands]}}."""
    found = defaultdict(lambda: defaultdict(list))
    for name, parameter in options():
        long = next(word for word in parameter.opts if word.startswith("--"))
        if long not in exceptions:
            found[long][value(parameter)].append(name)
    return {name: dict(values) for name, values in found.items() if len(values) > 1}


def test_names_and_short_forms():
    assert differing(lambda each: (tuple(each.opts), tuple(each.secondary_opts), each.metavar, each.name), {}) == {}
    shorts = defaultdict(set)
    for _, parameter in options():
        long = next(word for word in parameter.opts if word.startswith("--"))
        for word in parameter.opts:
            if not word.startswith("--"):
                shorts[word].add(long)
    assert {short: names for short, names in shorts.items() if len(names) > 1} == {}


def test_help():
    assert differing(lambda each: each.help, OTHER_HELP) == {}


def test_defaults():
    assert differing(lambda each: repr(each.default), OTHER_DEFAULT) == {}


def test_exceptions_are_needed():
    names = {word for _, parameter in options() for word in parameter.opts}
    assert {*OTHER_HELP, *OTHER_DEFAULT} <= names


def test_arguments_are_called_alike():
    helps = defaultdict(set)
    for name, command in LEAVES.items():
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                assert parameter.metavar, f"{name}: {parameter.name} needs a metavar"
                assert parameter.metavar == parameter.metavar.upper().strip("[]."), name  # usage adds brackets and dots
                helps[parameter.metavar].add((parameter.help or "").strip())
    for metavar in ("DATA", "CHECKPOINT"):
        assert len(helps[metavar]) == 1, helps[metavar]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_flows_and_ends_with_examples(name):
    command = COMMANDS[name]
    assert command.help, name
    assert all("\n" not in paragraph for paragraph in command.help.split("\n\n"))
    assert EXAMPLES.get(name), f"'{name}' has no examples: add some to cli/_examples.py"
    assert command.epilog.startswith("Examples:")
    assert all(line in command.epilog for line in EXAMPLES[name])


@pytest.mark.parametrize("line", sorted({line for lines in EXAMPLES.values() for line in lines}))
def test_examples_parse(line):
    program, *words = shlex.split(line)
    assert program == "melcodec"
    words = [word for index, word in enumerate(words) if not {"<", ">"} & {word, words[index - 1] if index else ""}]
    name = " ".join(words[:2]) if " ".join(words[:2]) in LEAVES else words[0]
    assert name in LEAVES, line
    LEAVES[name].make_context(name, words[len(name.split()) :])  # raises for what it does not know


def test_every_example_is_of_a_command():
    assert set(EXAMPLES) <= set(COMMANDS)


def test_help_is_a_command_and_completion_is_on(cli):
    status, out, _ = cli("--help")
    assert status == 0
    assert " help " in out
    assert "--install-completion" in out
    assert cli("help", "encode").out == cli("encode", "--help").out
    assert cli("help", "plot", "mel").out == cli("plot", "mel", "-h").out
    assert cli("help", "no-such").status == 2


def test_no_help_loses_words_in_brackets():
    """Rich takes [eval] for a style and leaves it out, unless a backslash is before it."""
    for name, command in COMMANDS.items():
        texts = [command.help or "", *(getattr(each, "help", None) or "" for each in command.params)]
        assert not [text for text in texts if re.search(r"(?<!\\)\[[a-z]", text)], name


@pytest.mark.parametrize("width", [50, 80, 160])
def test_help_fits_the_terminal(cli, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", width, raising=False)
    out = cli("preprocess", "--help").out
    lines = [line for line in out.splitlines() if line.strip()]
    assert max(map(len, lines)) <= width
    assert "list[" not in out
    assert out.count("<bool>") <= 1  # that of --help, which typer adds
    assert "Run it again" in " ".join(out.split())
