# Rules of lib.sh itself.

a_stand_in_logs_its_arguments_on_one_line() {
  stand_in gh <<<'echo "answer to $1"'
  passes gh api "two
lines" '*'
  says "answer to api"
  equals "gh api two lines *" "$(cat "$scratch/calls")"
}

a_stand_in_without_lines_succeeds() {
  stand_in docker
  passes docker build .
  equals "" "$output"
}

what_reaches_outside_needs_a_stand_in() {
  fails curl https://example.org
  says "there is no stand-in for this program: curl"
}

a_stand_in_that_fails_midway_fails() {
  stand_in gh <<<'false; echo unreachable'
  fails gh
  not_says unreachable
}

expectations_that_do_not_hold_fail() {
  stand_in gh
  gh one
  gh two
  called_in_order 'gh one' 'gh two'
  fails called_in_order 'gh two' 'gh one'
  fails called 'gh three'
  fails not_called 'gh t*o'
  fails equals a b
  fails passes false
  fails fails true
  fails fails no-such-program
}

nothing_of_the_callers_environment_is_seen() {
  equals "HOME LC_ALL TMPDIR" "$(env | sed 's/=.*//' | grep -vE '^(PATH|PWD|SHLVL|_)$' | sort | xargs)"
}
