"""doit tabcompletion: scripts with which bash and zsh complete commands and tasks, wherever doit was called from.

doit's own scripts call a program `doit` on the PATH, stop at the colon of a subtask in zsh, and need the package
bash-completion in bash.
"""

from string import Template
from typing import Any

from doit.cmd_completion import TabCompletion as DoitTabCompletion

BASH = Template(r"""# bash completion for doit; to use it: source <(./doit tabcompletion)
_doit() {
    local line="${COMP_LINE:0:COMP_POINT}" program="${COMP_WORDS[0]/#\~\//$HOME/}" names word cut
    word="${line##*[[:space:]]}"
    names=$tasks
    if [[ $COMP_CWORD -eq 1 || ${COMP_WORDS[1]} == help || $line != *[[:space:]]*[[:space:]]* ]]; then
        names="$names $commands"
    fi
    COMPREPLY=($(compgen -W "$names" -- "$word"))
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then # bash replaces only what follows the colon
        cut="${word%"${word##*:}"}"
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    fi
}
complete -o default -F _doit doit
""")
ZSH = Template(r"""#compdef doit
# zsh completion for doit; to use it: source <(./doit tabcompletion --shell zsh)
_doit() {
    local program=${~words[1]}
    local -a names
    names=(${=:-$tasks})
    if (( CURRENT == 2 )) || [[ $words[2] == help ]]; then
        names+=($commands)
    fi
    compadd -- $names || _files
}
if [[ $funcstack[1] == _doit ]]; then
    _doit "$@"
else
    compdef _doit doit
fi
""")
LISTED = '"$("$program" list --all --quiet 2>/dev/null)"'
"""The words of a shell that ask the doit which is being completed for its tasks."""


class TabCompletion(DoitTabCompletion):  # type: ignore[misc]  # doit ships no types
    """doit tabcompletion."""

    name = "tabcompletion"

    def _generate_bash(self, opt_values: Any, pos_args: list[str]) -> None:
        self._write(BASH, opt_values, pos_args)

    def _generate_zsh(self, opt_values: Any, pos_args: list[str]) -> None:
        self._write(ZSH, opt_values, pos_args)

    def _write(self, script: Template, values: Any, pos_args: list[str]) -> None:
        tasks = LISTED
        if values["hardcode_tasks"]:
            self.loader.setup(values)
            self.loader.load_doit_config()
            tasks = f'"{" ".join(sorted(task.name for task in self.loader.load_tasks(self, pos_args)))}"'
        self.outstream.write(script.safe_substitute(tasks=tasks, commands=" ".join(sorted(self.cmds))))
