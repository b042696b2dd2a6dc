"""Completion for fish."""

from .completion_words import Command, Word

HEAD = """\
# Completion of refold for fish: refold completion fish > ~/.config/fish/completions/refold.fish
function __refold_runs
    set -l words (commandline -opc)
    set -l store
    if set -l place (contains -i -- --store $words)
        set store --store $words[(math $place + 1)]
    end
    refold completion --runs (commandline -ct) $store 2>/dev/null
end
complete -c refold -f
complete -c refold -n __fish_use_subcommand -l version -d 'print the version'"""


def fish(commands: list[Command]) -> str:
    """The script."""
    lines = [HEAD]
    for command in commands:
        lines.append(
            f"complete -c refold -n __fish_use_subcommand -a {command.name} -d {_quote(command.help)}"
        )
        when = f"complete -c refold -n '__fish_seen_subcommand_from {command.name}'"
        lines += [f"{when} {_option(option)} -d {_quote(option.help)}" for option in command.options]
        lines += [f"{when} {offer}" for argument in command.arguments if (offer := _offer(argument))]
    return "\n".join(lines)


def _option(option: Word) -> str:
    names = " ".join(
        f"-l {name.removeprefix('--')}" if name.startswith("--") else f"-s {name[1:]}"
        for name in option.names
    )
    if not option.takes:
        return names
    if option.choices:
        return f"{names} -x -a {_quote(' '.join(option.choices))}"
    return f"{names} -r -F" if option.is_file else f"{names} -x"


def _offer(argument: Word) -> str:
    if argument.choices:
        return f"-a {_quote(' '.join(argument.choices))}"
    if argument.is_run:
        return "-a '(__refold_runs)'"
    return "-F" if argument.is_file else ""


def _quote(text: str) -> str:
    """In fish a backslash escapes a quote inside of quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
