/* SPDX-License-Identifier: Apache-2.0 */
/* leat completion: what a shell needs to complete leat's words, written from the same tables. */
#include <stdio.h>
#include <string.h>
#include "cli.h"

static struct cli_option options[] = {{0}};

static void bash(void)
{
	puts("_leat()\n{\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} words\n\tcase $COMP_CWORD in\n\t1)");
	printf("\t\twords='--help --version");
	for (int i = 0; cli_commands[i]; i++)
		printf(" %s", cli_commands[i]->name);
	puts("' ;;\n\t*)\n\t\tcase ${COMP_WORDS[1]} in");
	for (int i = 0; cli_commands[i]; i++) {
		printf("\t\t%s) words='--help", cli_commands[i]->name);
		for (const struct cli_option *o = cli_commands[i]->options; o->name; o++)
			printf(" --%s", o->name);
		puts("' ;;");
	}
	puts("\t\t*) words= ;;\n\t\tesac ;;\n\tesac\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
	     "complete -o default -F _leat leat");
}

static void zsh(void)
{
	puts("#compdef leat\nif (( CURRENT == 2 )); then\n\t_values command \\");
	for (int i = 0; cli_commands[i]; i++)
		printf("\t\t'%s[%s]'%s\n", cli_commands[i]->name, cli_commands[i]->summary,
		       cli_commands[i + 1] ? " \\" : "");
	puts("else\n\tcase ${words[2]} in");
	for (int i = 0; cli_commands[i]; i++) {
		printf("\t%s) _arguments '--help[this text]'", cli_commands[i]->name);
		for (const struct cli_option *o = cli_commands[i]->options; o->name; o++)
			printf(" '--%s[]%s%s'", o->name, o->arg ? ":" : "", o->arg ? o->name : "");
		puts(" ;;");
	}
	puts("\tesac\nfi");
}

static int run(struct cli_command *cmd, int argc, char **argv)
{
	if (argc == 1 && !strcmp(argv[0], "bash"))
		bash();
	else if (argc == 1 && !strcmp(argv[0], "zsh"))
		zsh();
	else
		return cli_usage(cmd, "give the shell: bash or zsh");
	return CLI_DONE;
}

struct cli_command cmd_completion = {"completion", "bash|zsh", "Print completions for a shell.", options,
				     run};
