# Rules of scripts/pin-images, with a separate Dockerfile and compose file and a stand-in for Docker.
load lib

_project() {
  mkdir -p "$scratch/project/scripts/lib"
  cp scripts/pin-images "$scratch/project/scripts"
  cp scripts/lib/common.sh "$scratch/project/scripts/lib"
  cd "$scratch/project"
  printf 'FROM rust:1.2.3-slim AS build\nRUN true\nFROM example.org/base:nonroot\nCOPY --from=build /a /b\n' >Dockerfile
  printf 'services:\n  db:\n    image: postgres:15\n  service:\n    image: tickets\n' >compose.yaml
  stand_in docker <<'SH'
case $* in
  *" rust:1.2.3-slim") printf 'sha256:%064d\n' 1 ;;
  *" example.org/base:nonroot") printf 'sha256:%064d\n' 2 ;;
  *" postgres:15") printf 'sha256:%064d\n' "$(cat "$scratch/newest" 2>/dev/null || echo 3)" ;;
  *) exit 1 ;;
esac
SH
}

_digest() { printf 'sha256:%064d' "$1"; }

@test "each base image gets the digest that its tag has" {
  _project
  passes scripts/pin-images
  equals "FROM rust:1.2.3-slim@$(_digest 1) AS build
RUN true
FROM example.org/base:nonroot@$(_digest 2)
COPY --from=build /a /b" "$(cat Dockerfile)"
  equals "services:
  db:
    image: postgres:15@$(_digest 3)
  service:
    image: tickets" "$(cat compose.yaml)"
}

@test "a digest that is there is renewed" {
  _project
  passes scripts/pin-images
  echo 4 >"$scratch/newest"
  passes scripts/pin-images
  says "postgres:15@$(_digest 4)"
  equals 1 "$(grep -c "image: postgres:15@$(_digest 4)$" compose.yaml)"
  equals 1 "$(grep -c "^FROM rust:1.2.3-slim@$(_digest 1) AS build$" Dockerfile)"
}

@test "a registry that does not answer changes nothing of its images" {
  _project
  stand_in docker <<<'echo unreachable >&2; exit 1'
  fails scripts/pin-images
  says unreachable
  says "no digest"
  not_says sha256
  equals 0 "$(cat Dockerfile compose.yaml | grep -c @ || :)"
}

@test "what is no digest is not written" {
  _project
  stand_in docker <<<'echo "<nil>"'
  fails scripts/pin-images
  says "is not a digest"
  equals 0 "$(cat Dockerfile compose.yaml | grep -c @ || :)"
}

@test "an option asks nobody" {
  _project
  fails scripts/pin-images --check
  not_called docker
}

# _pull_request: runs the last step of pin.yml.
_pull_request() { bash -eo pipefail <(sed '1,/name: Open a pull request/d' "$1" | sed '1,/run: |/d'); }

@test "what was looked up comes as a pull request and nothing as none" {
  local workflow=$PWD/.github/workflows/pin.yml
  _project
  mkdir terraform
  touch terraform/.terraform.lock.hcl
  committed
  git init --quiet --bare "$scratch/origin"
  git remote add origin "$scratch/origin"
  echo 0 >"$scratch/open"
  stand_in gh <<<'case "$2" in list) cat "$scratch/open" ;; esac'
  passes _pull_request "$workflow"
  says 'nothing to pin'
  not_called 'gh pr create'
  scripts/pin-images
  echo 'provider {}' >terraform/.terraform.lock.hcl
  passes _pull_request "$workflow"
  called 'gh pr create --head pin'
  equals 'Dockerfile compose.yaml terraform/.terraform.lock.hcl' \
    "$(git -C "$scratch/origin" show --format= --name-only pin | paste -sd ' ')"
  # One that is open is moved.
  echo 1 >"$scratch/open"
  echo 'provider {} # a newer one' >terraform/.terraform.lock.hcl
  passes _pull_request "$workflow"
  equals 1 "$(calls 'gh pr create')"
}
