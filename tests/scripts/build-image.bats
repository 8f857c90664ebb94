# Rules of scripts/build-image, in a separate repository with a stand-in for Docker.
load lib

_project() {
  mkdir -p "$scratch/project/scripts/lib"
  cp scripts/build-image "$scratch/project/scripts"
  cp scripts/lib/common.sh "$scratch/project/scripts/lib"
  cd "$scratch/project"
  printf '[package]\nname = "tickets"\nversion = "1.2.3"\n\n[dependencies]\nother = { version = "9" }\n' >Cargo.toml
  committed
  stand_in docker <<'SH'
while [ $# != 0 ]; do
  if [ "$1" = --metadata-file ]; then printf '{ "containerimage.digest": "sha256:%064d" }\n' 7 >"$2"; fi
  shift
done
echo "what a build prints"
SH
}

@test "without options it stays on this machine" {
  _project
  passes scripts/build-image
  called "docker buildx build * VERSION=1.2.3 * REVISION=$(git rev-parse HEAD) *--load --tag register-ticket-api:latest ."
  not_called --push
}

@test "what is pushed bears the hashes of the commit and of its tree" {
  _project
  equals "image=ghcr.io/somebody/tickets
digest=sha256:0000000000000000000000000000000000000000000000000000000000000007" \
    "$(GITHUB_REPOSITORY=Somebody/Tickets scripts/build-image --push)"
  called "--tag ghcr.io/somebody/tickets:$(git rev-parse HEAD) --tag ghcr.io/somebody/tickets:tree-$(git rev-parse 'HEAD^{tree}') ."
  called "--push * --platform linux/amd64 * SOURCE=https://github.com/Somebody/Tickets "
  equals 1 "$(calls docker)"
}

@test "an image for another processor never stands where cloud run looks" {
  _project
  passes env GITHUB_REPOSITORY=somebody/tickets scripts/build-image --push arm64
  called "--platform linux/arm64 * --tag ghcr.io/somebody/tickets:$(git rev-parse HEAD)-arm64 ."
  not_called "tickets:$(git rev-parse HEAD) "
  not_called ":tree-"
}

@test "a directory that differs from the commit is not pushed" {
  _project
  touch new
  fails env GITHUB_REPOSITORY=somebody/tickets scripts/build-image --push
  says "differs from the commit"
  not_called docker
}

@test "a push needs the name of the repository" {
  _project
  fails scripts/build-image --push
  says "GITHUB_REPOSITORY is missing"
  not_called docker
}

@test "a push that fails prints no digest" {
  _project
  stand_in docker <<<'echo denied >&2; exit 1'
  fails env GITHUB_REPOSITORY=somebody/tickets scripts/build-image --push
  says denied
  not_says digest=
}

@test "a push without a digest fails" {
  _project
  stand_in docker <<'SH'
while [ "$1" != --metadata-file ]; do shift; done
echo '{}' >"$2"
SH
  fails env GITHUB_REPOSITORY=somebody/tickets scripts/build-image --push
  says "docker did not report the digest"
  not_says digest=
}

@test "unknown options build nothing" {
  _project
  fails scripts/build-image --pull
  fails scripts/build-image --push riscv64
  not_called docker
}
