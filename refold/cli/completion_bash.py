"""Completion for bash."""

from collections.abc import Iterable
from shlex import quote

from .completion_words import Command, Word

SCRIPT = """\
# Completion of refold for bash: eval "$(refold completion bash)"
_refold() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev="" cmd="" word i place=0
    local -a store=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        if [[ -z $cmd ]]; then
            [[ $word == -* ]] || cmd=$word
        elif [[ $word == --store ]]; then
            store=(--store "${{COMP_WORDS[i + 1]}}")
            prev=$word
            ((i++))
        elif [[ $word == -* ]]; then
            prev=$word
            case "$cmd $word" in
            {valued}) ((i++)) ;;
            esac
        else
            ((place++))
        fi
    done
    if ((i > COMP_CWORD)); then # the value of an option
        case "$cmd $prev" in
{values}
        esac
    elif [[ -z $cmd ]]; then
        COMPREPLY=($(compgen -W {commands} -- "$cur"))
    elif [[ $cur == -* ]]; then
        case $cmd in
{options}
        esac
    else
        case "$cmd $place" in
{arguments}
        esac
    fi
}}
_refold_runs() {{
    COMPREPLY=($(refold completion --runs "$cur" "${{store[@]}}" 2>/dev/null))
}}
complete -F _refold refold
"""


def bash(commands: list[Command]) -> str:
    """The script."""
    valued = [f'"{c.name} {name}"' for c in commands for o in c.options if o.takes for name in o.names]
    values = [
        f'        {" | ".join(_case(c.name, name) for name in o.names)}) {offer} ;;'
        for c in commands for o in c.options if o.takes and (offer := _offer(o))
    ]  # fmt: skip
    options = [f"        {c.name}) {_words(n for o in c.options for n in o.names)} ;;" for c in commands]
    arguments = [
        f"        {_place(c, n)}) {offer} ;;"
        for c in commands for n, a in enumerate(c.arguments) if (offer := _offer(a))
    ]  # fmt: skip
    names = quote(" ".join([*(c.name for c in commands), "--help", "--version"]))
    return SCRIPT.format(
        valued=" | ".join(valued), values="\n".join(values), commands=names, options="\n".join(options),
        arguments="\n".join(arguments),
    ).rstrip()  # fmt: skip


def _case(*words: str) -> str:
    return f'"{" ".join(words)}"'


def _place(command: Command, number: int) -> str:
    return f'"{command.name} "*' if command.arguments[number].many else _case(command.name, str(number))


def _words(words: Iterable[str]) -> str:
    return f'COMPREPLY=($(compgen -W {quote(" ".join(words))} -- "$cur"))'


def _offer(word: Word) -> str:
    """What completes a value; nothing when anything may stand there."""
    if word.choices:
        return _words(word.choices)
    if word.is_run:
        return "_refold_runs"
    return 'COMPREPLY=($(compgen -f -- "$cur"))' if word.is_file else ""
