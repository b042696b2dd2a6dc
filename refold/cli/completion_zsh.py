"""Completion for zsh."""

from shlex import quote

from .completion_words import Command, Word

SCRIPT = """\
#compdef refold
# Completion of refold for zsh: refold completion zsh > "${{fpath[1]}}/_refold"
_refold_runs() {{
    local -a found
    local store=${{opt_args[--store]}}
    found=(${{(f)"$(refold completion --runs "$PREFIX" ${{store:+--store}} $store 2>/dev/null)"}})
    compadd -a found
}}
_refold() {{
    local context state line
    typeset -A opt_args
    local -a commands
    commands=(
{commands}
    )
    _arguments -C '--help[show help]' '--version[print the version]' \\
        '1:command:->command' '*::argument:->argument'
    case $state in
    command) _describe command commands ;;
    argument)
        case $line[1] in
{cases}
        esac
        ;;
    esac
}}
if [ "$funcstack[1]" = _refold ]; then
    _refold "$@"
else
    compdef _refold refold
fi
"""


def zsh(commands: list[Command]) -> str:
    """The script."""
    named = [f"        {quote(f'{c.name}:{_plain(c.help)}')}" for c in commands]
    cases = [f"        {c.name}) _arguments {' '.join(_specs(c))} ;;" for c in commands]
    return SCRIPT.format(commands="\n".join(named), cases="\n".join(cases)).rstrip()


def _specs(command: Command) -> list[str]:
    found = [
        quote(f"{name}[{_plain(option.help)}]{_value(option)}")
        for option in command.options
        for name in option.names
    ]
    for number, argument in enumerate(command.arguments, 1):
        place = "*" if argument.many else str(number)
        found.append(quote(f"{place}:{_plain(argument.takes)}:{_action(argument)}"))
    return found


def _value(option: Word) -> str:
    return f":{option.takes}:{_action(option)}" if option.takes else ""


def _action(word: Word) -> str:
    if word.choices:
        return f"({' '.join(word.choices)})"
    if word.is_run:
        return "_refold_runs"
    return "_files" if word.is_file else " "


def _plain(text: str) -> str:
    """Without what has a meaning in a specification."""
    return "".join(f"\\{c}" if c in "[]:\\" else c for c in text)
