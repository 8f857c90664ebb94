# Rules of lib.bash itself.
load lib

@test "a stand in logs its arguments on one line" {
  stand_in gh <<<'echo "answer to $1"'
  passes gh api "two
lines" '*'
  says "answer to api"
  equals "gh api two lines *" "$(cat "$scratch/calls")"
}

@test "a stand in without lines succeeds" {
  stand_in docker
  passes docker build .
  equals "" "$output"
}

@test "what reaches outside needs a stand in" {
  fails curl https://example.org
  says "there is no stand-in for this program: curl"
}

@test "a stand in that fails midway fails" {
  stand_in gh <<<'false; echo unreachable'
  fails gh
  not_says unreachable
}

@test "expectations that do not hold fail" {
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

@test "nothing of the callers environment is seen" {
  equals "HOME LC_ALL TMPDIR" "$(env | sed 's/=.*//' | grep -vE '^(PATH|PWD|SHLVL|_|BATS_.*|BASH_FUNC_bats_.*|})$' | sort | xargs)"
}
