# Rules of scripts/hooks/pre-receive, in a real bare repository that a clone pushes to.
load lib

# The tests of the commits made here: they fail if a file `broken` exists.
_server() { # OPTION…: of git init
  printf '[user]\nname = Test\nemail = test@example.org\n[init]\ndefaultBranch = main\n' >"$HOME/.gitconfig"
  server=$scratch/server.git
  git init --quiet --bare "$@" "$server"
  cp scripts/hooks/pre-receive "$server/hooks"
  git init --quiet "$@" "$scratch/clone"
  cd "$scratch/clone"
  git remote add origin "$server"
  mkdir scripts
  printf '#!/bin/sh\necho "the tests of $(cat content)"\ntest ! -e broken\n' >scripts/test
  chmod +x scripts/test
  _commit first
}

_commit() { # CONTENT
  echo "$1" >content
  git add --all
  git commit --quiet -m "$1"
}

_break() {
  touch broken
  _commit "$1"
}

_at() { git -C "$server" rev-parse --verify --quiet "refs/heads/$1" || echo absent; }

@test "a push to main whose tests pass is accepted" {
  _server
  passes git push origin main
  says "the tests of first"
  equals "$(git rev-parse HEAD)" "$(_at main)"
  _commit second
  passes git push origin main
  says "the tests of second"
  equals "$(git rev-parse HEAD)" "$(_at main)"
}

@test "a push to main whose tests fail is refused" {
  _server
  git push --quiet origin main
  _break second
  fails git push origin main
  says "the tests of second"
  says "main was not changed: ./scripts/test failed"
  equals "$(git rev-parse HEAD~)" "$(_at main)"
  fails git -C "$server" cat-file -e "$(git rev-parse HEAD)"
}

@test "another branch and a tag are not tested" {
  _server
  _break second
  git tag v1.0.0
  passes git push origin HEAD:refs/heads/feature/a v1.0.0
  not_says "the tests of"
  equals "$(git rev-parse HEAD)" "$(_at feature/a)"
  passes git push origin --delete feature/a
  equals absent "$(_at feature/a)"
}

@test "main is not deleted" {
  _server
  git push --quiet origin main
  # Git itself would refuse to delete the branch that HEAD names.
  git -C "$server" symbolic-ref HEAD refs/heads/other
  fails git push origin --delete main
  says "main must not be deleted"
  equals "$(git rev-parse HEAD)" "$(_at main)"
}

@test "a forced push is tested like any other" {
  _server
  git push --quiet origin main
  before=$(git rev-parse HEAD)
  git commit --quiet --amend -m "another first"
  passes git push --force origin main
  says "the tests of first"
  equals "$(git rev-parse HEAD)" "$(_at main)"
  touch broken
  git add broken
  git commit --quiet --amend -m "a broken first"
  fails git push --force origin main
  equals "$(git rev-parse 'HEAD@{1}')" "$(_at main)"
  [ "$before" != "$(_at main)" ]
}

@test "a main that fails takes the rest of the push with it" {
  _server
  git push --quiet origin main
  git branch good
  _break second
  fails git push origin good main
  equals absent "$(_at good)"
  git reset --quiet --hard good
  _commit third
  passes git push origin good main
  equals "$(git rev-parse good)" "$(_at good)"
  equals "$(git rev-parse main)" "$(_at main)"
}

@test "main is tested whatever the order of the refs" {
  _server
  _break second
  fails git push origin HEAD:refs/heads/a main HEAD:refs/heads/z
  says "the tests of second"
  equals "absent absent absent" "$(_at a) $(_at main) $(_at z)"
}

# Such a push sends no objects and so has no quarantine.
@test "a commit that the server has already is tested when main moves to it" {
  _server
  git push --quiet origin main
  _break second
  git push --quiet origin main:refs/heads/feature/a
  fails git push origin main
  says "the tests of second"
  equals "$(git rev-parse HEAD~)" "$(_at main)"
}

@test "a test may use git in its checkout and elsewhere" {
  _server
  git push --quiet origin main
  _commit second
  git -C "$server" config hooks.testCommand \
    'git log --format=%s && git branch made && git init -q other && git -C other commit -q --allow-empty -m x && env | grep ^GIT_QUARANTINE || true'
  passes git push origin main
  says "remote: second"
  says "remote: first"
  not_says GIT_QUARANTINE_PATH
  equals absent "$(_at made)"
}

@test "a repository with longer hashes is tested too" {
  _server --object-format=sha256
  passes git push origin main
  says "the tests of first"
  git -C "$server" symbolic-ref HEAD refs/heads/other
  fails git push origin --delete main
  says "main must not be deleted"
}

@test "the command and the branch are settings" {
  _server
  git -C "$server" config hooks.testCommand 'echo "tested in $(basename "$PWD")" && false'
  git -C "$server" config hooks.testBranch release
  passes git push origin main
  fails git push origin main:release
  says "tested in checkout"
  equals absent "$(_at release)"
}

@test "tests that are missing refuse the push" {
  _server
  git rm --quiet scripts/test
  _commit second
  fails git push origin main
  says "main was not changed"
}

@test "nothing is left behind" {
  _server
  mkdir "$scratch/tmp"
  export TMPDIR=$scratch/tmp
  git push --quiet origin main
  _break second
  fails git push origin main
  equals "" "$(ls "$scratch/tmp")"
}
