/* SPDX-License-Identifier: Apache-2.0 */
/* leat completion: what a shell needs to complete leat's words, written from the same tables. */
#include <stdio.h>
#include <string.h>
#include "cli.h"

static struct cli_option options[] = {{0}};

static int first_word(const struct cli_command *cmd)
{
	return (int)strcspn(cmd->name, " ");
}

/* Does command @i begin with a word that none before it does? Those of two words stand together. */
static int is_new(int i)
{
	return i == 0 || first_word(cli_commands[i]) != first_word(cli_commands[i - 1]) ||
	       strncmp(cli_commands[i]->name, cli_commands[i - 1]->name, (size_t)first_word(cli_commands[i])) != 0;
}

/* The second words of those that begin as command @i does. */
static void second_words(int i, const char *format)
{
	do {
		printf(format, cli_commands[i]->name + first_word(cli_commands[i]) + 1, cli_commands[i]->summary);
		i++;
	} while (cli_commands[i] && !is_new(i));
}

/* The pattern of a command's two first words; one that has but one takes anything for the second. */
static void pattern(const struct cli_command *cmd)
{
	printf("\t'%s%s) ", cmd->name, cmd->name[first_word(cmd)] ? "'" : " '*");
}

static void bash(void)
{
	puts("_leat()\n{\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} words=\n"
	     "\tcase \"$COMP_CWORD ${COMP_WORDS[1]} ${COMP_WORDS[2]-}\" in");
	printf("\t'1 '*) words='--help --version");
	for (int i = 0; cli_commands[i]; i++)
		if (is_new(i))
			printf(" %.*s", first_word(cli_commands[i]), cli_commands[i]->name);
	puts("' ;;\n\t*) case \"${COMP_WORDS[1]} ${COMP_WORDS[2]-}\" in");
	for (int i = 0; cli_commands[i]; i++) {
		pattern(cli_commands[i]);
		printf("words='--help");
		for (const struct cli_option *o = cli_commands[i]->options; o->name; o++)
			printf(" --%s", o->name);
		puts("' ;;");
	}
	for (int i = 0; cli_commands[i]; i++)
		if (is_new(i) && cli_commands[i]->name[first_word(cli_commands[i])]) {
			printf("\t'%.*s '*) words='", first_word(cli_commands[i]), cli_commands[i]->name);
			second_words(i, "%s %.0s");
			puts("' ;;");
		}
	puts("\tesac ;;\n\tesac\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
	     "complete -o default -F _leat leat");
}

static void zsh(void)
{
	puts("#compdef leat\nif (( CURRENT == 2 )); then\n\t_values command \\");
	for (int i = 0; cli_commands[i]; i++)
		if (is_new(i))
			printf("\t\t'%.*s[%s]' \\\n", first_word(cli_commands[i]), cli_commands[i]->name,
			       cli_commands[i]->summary);
	puts("\t\t'help[all of them]'\nelse\n\tcase \"${words[2]} ${words[3]}\" in");
	for (int i = 0; cli_commands[i]; i++) {
		pattern(cli_commands[i]);
		printf("_arguments '--help[this text]'");
		for (const struct cli_option *o = cli_commands[i]->options; o->name; o++)
			printf(" '--%s[]%s%s'", o->name, o->arg ? ":" : "", o->arg ? o->name : "");
		puts(" ;;");
	}
	for (int i = 0; cli_commands[i]; i++)
		if (is_new(i) && cli_commands[i]->name[first_word(cli_commands[i])]) {
			printf("\t'%.*s '*) _values command", first_word(cli_commands[i]), cli_commands[i]->name);
			second_words(i, " '%s[%s]'");
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
