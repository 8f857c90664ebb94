# Rules of scripts/image: an image is only used if it is proven to be built from this very tree.
load lib

DIGEST=sha256:$(printf 'a%.0s' {1..64})
BUILT=$(printf 'c%.0s' {1..40}) # the commit that a pull request's merge would have made

# A registry and a GitHub in which everything is right. A rule changes one thing in $scratch.
_world() {
  export GITHUB_REPOSITORY=Someone/Tickets DOCKERHUB_USERNAME=someone
  mkdir "$scratch/tags"
  git rev-parse 'HEAD^{tree}' >"$scratch/tree"
  echo success >"$scratch/conclusion"
  sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml >"$scratch/version"
  echo "$DIGEST" >"$scratch/tags/ghcr.io_someone_tickets:tree-$(git rev-parse 'HEAD^{tree}')"
  _attested '.'
  stand_in docker <<'SH'
case "$1 ${3-}" in
  "login "*) cat >"$scratch/login-$2" ;;
  "pull "*) ;;
  "image --format") cat "$scratch/version" ;;
  "run --read-only") echo "register-ticket-api $(cat "$scratch/version")" ;;
  "buildx inspect")
    tag=${4//\//_}
    cat "$scratch/tags/$tag" || exit 1
    ;;
  "buildx create")
    tag=${6//\//_}
    if [ -e "$scratch/wraps" ]; then echo "sha256:$(printf 'f%.0s' {1..64})"; else echo "${7#*@}"; fi >"$scratch/tags/$tag"
    ;;
  *) exit 1 ;;
esac
SH
  stand_in gh <<'SH'
case "$*" in
  "attestation verify "*) cat "$scratch/attestations" ;;
  "api repos/Someone/Tickets/git/commits/"*" --jq .tree.sha") cat "$scratch/tree" ;;
  "api repos/Someone/Tickets/actions/runs/7 --jq .conclusion") cat "$scratch/conclusion" ;;
  "api repos/Someone/Tickets/actions/workflows/cd-stg.yml/runs?per_page=1 "*) cat "$scratch/newest" ;;
  *) exit 1 ;;
esac
SH
}

# The output of `gh attestation verify --format json`, with a jq filter applied to the certificate.
_attested() { # FILTER
  jq -n --arg commit "$BUILT" '{
    sourceRepositoryDigest: $commit, buildSignerDigest: $commit, buildConfigDigest: $commit,
    buildConfigURI: "https://github.com/Someone/Tickets/.github/workflows/pr-validations.yml@refs/pull/3/merge",
    runInvocationURI: "https://github.com/Someone/Tickets/actions/runs/7/attempts/1"
  } | '"$1"' | [{verificationResult: {signature: {certificate: .}}}]' >"$scratch/attestations"
}

_none_is_found() {
  fails scripts/image find
  not_says "$DIGEST"$'\n'
}

@test "the image of this tree is found" {
  _world
  equals "$DIGEST" "$(scripts/image find)"
  called "gh attestation verify oci://ghcr.io/someone/tickets@$DIGEST --repo Someone/Tickets --signer-workflow Someone/Tickets/.github/workflows/build-image.yml --deny-self-hosted-runners"
  called "gh api repos/Someone/Tickets/git/commits/$BUILT"
}

@test "there is none without its tag" {
  _world
  rm -r "$scratch/tags"
  fails scripts/image find
  says 'no image has the tag tree-'
}

@test "a tag without an attestation proves nothing" {
  _world
  stand_in gh <<<'exit 1'
  _none_is_found
  says 'no attestation proves it'
}

@test "no attestations prove nothing" {
  _world
  echo '[]' >"$scratch/attestations"
  _none_is_found
}

# Somebody moved the tag to an image that was properly built, but from another tree.
@test "the image of another tree is not taken" {
  _world
  printf 'd%.0s' {1..40} >"$scratch/tree"
  _none_is_found
}

@test "a commit that github no longer has proves nothing" {
  _world
  rm "$scratch/tree"
  _none_is_found
}

# build-image.yml of another commit may have built anything.
@test "a build by the workflow of another commit is not taken" {
  _world
  _attested '.buildSignerDigest = "eeee"'
  _none_is_found
}

@test "a caller of another commit is not taken" {
  _world
  _attested '.buildConfigDigest = "eeee"'
  _none_is_found
}

@test "the image of a pull request that failed is not taken" {
  _world
  echo failure >"$scratch/conclusion"
  _none_is_found
  says 'no successful run of pr-validations'
}

@test "the image of a run that still runs is not taken" {
  _world
  echo null >"$scratch/conclusion"
  _none_is_found
}

@test "the image of another workflow is not found" {
  _world
  _attested '.buildConfigURI = "https://github.com/Someone/Tickets/.github/workflows/other.yml@refs/heads/a"'
  _none_is_found
}

@test "a promoted image keeps its digest" {
  _world
  equals "docker.io/someone/register-ticket-api@$DIGEST" "$(scripts/image promote "$DIGEST")"
  called "docker buildx imagetools create --prefer-index=false --tag docker.io/someone/register-ticket-api:$(git rev-parse HEAD) ghcr.io/someone/tickets@$DIGEST"
  not_called 'docker build '
}

@test "an image of another version is not promoted" {
  _world
  echo 9.9.9 >"$scratch/version"
  fails scripts/image promote "$DIGEST"
  says "labelled '9.9.9'"
  GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v9.9.9 fails scripts/image promote "$DIGEST"
  says 'the tag is v9.9.9'
  not_called 'docker buildx imagetools create'
}

@test "another digest after the copy is an error" {
  _world
  touch "$scratch/wraps"
  fails scripts/image promote "$DIGEST"
  not_says "register-ticket-api@$DIGEST"
  says "not $DIGEST"
}

@test "what is not proven is not promoted" {
  _world
  printf 'd%.0s' {1..40} >"$scratch/tree"
  fails scripts/image promote "$DIGEST"
  fails scripts/image tag "$DIGEST" latest
  not_called 'docker buildx imagetools create'
}

# Built on main by cd-stg, whose run is still in progress.
@test "an image built on main is promoted" {
  _world
  _attested '.buildConfigURI = "https://github.com/Someone/Tickets/.github/workflows/cd-stg.yml@refs/heads/main"'
  passes scripts/image promote "$DIGEST"
}

@test "tags are moved to the digest" {
  _world
  passes scripts/image tag "$DIGEST" latest stg
  equals "$DIGEST" "$(cat "$scratch/tags/ghcr.io_someone_tickets:latest")"
  equals "$DIGEST" "$(cat "$scratch/tags/ghcr.io_someone_tickets:stg")"
}

# _repeated NEWEST: run 5 of cd-stg is repeated, and NEWEST is the newest.
_repeated() {
  _world
  export GITHUB_RUN_ATTEMPT=2 GITHUB_RUN_NUMBER=5 GITHUB_REF_NAME=main
  export GITHUB_WORKFLOW_REF=Someone/Tickets/.github/workflows/cd-stg.yml@refs/heads/main
  echo "$1" >"$scratch/newest"
}

@test "a repeated run brings nothing back that another run replaced" {
  _repeated 6
  fails scripts/image tag "$DIGEST" latest
  says 'this repeats run 5 of cd-stg.yml, but run 6 came since'
  fails scripts/image promote "$DIGEST"
  not_called 'docker buildx imagetools create'
  GITHUB_RUN_ATTEMPT=1 passes scripts/image promote "$DIGEST"
}

@test "the newest run may be repeated" {
  _repeated 5
  passes scripts/image tag "$DIGEST" latest
  passes scripts/image promote "$DIGEST"
}

@test "a github that does not tell the newest run is a refusal" {
  _repeated ''
  fails scripts/image promote "$DIGEST"
  not_called 'docker buildx imagetools create'
}

# _published TAG…: the last step of release.yml, for v1.2.3, where TAG… are released already.
_published() {
  printf '%s\n' "$@" >"$scratch/releases"
  rm -f "$scratch/created"
  stand_in docker
  stand_in gh <<'SH'
case "$*" in
  "release view v1.2.3") [ -e "$scratch/created" ] ;;
  "release create v1.2.3 "*) [ ! -e "$scratch/refused" ] && touch "$scratch/created" ;;
  "release list "*) cat "$scratch/releases" ;;
  *) exit 1 ;;
esac
SH
  sed -n '/- name: Publish/,$p' .github/workflows/release.yml | sed '1,/run: |/d' >"$scratch/publish"
  IMAGE=ghcr.io/someone/tickets DIGEST=$DIGEST GITHUB_REF_NAME=v1.2.3 bash -eo pipefail "$scratch/publish"
}

@test "latest moves once its release is there" {
  passes _published v1.2.2 v0.10.0
  called_in_order 'gh release create v1.2.3 --latest=true' \
    "docker buildx imagetools create --tag ghcr.io/someone/tickets:latest ghcr.io/someone/tickets@$DIGEST"
  equals 1 "$(grep -c ':latest"' .github/workflows/release.yml)"
}

@test "latest stays where another release is newer or none was made" {
  passes _published v1.10.0 v1.2.2
  called 'gh release create v1.2.3 --latest=false'
  touch "$scratch/refused"
  fails _published v1.2.2
  not_called 'docker buildx imagetools create'
}

@test "tokens reach docker by its input" {
  _world
  GH_TOKEN=token-of-github DOCKERHUB_TOKEN=token-of-docker passes scripts/image promote "$DIGEST"
  equals token-of-github "$(cat "$scratch/login-ghcr.io")"
  equals token-of-docker "$(cat "$scratch/login-docker.io")"
  not_called token-of
}

@test "a digest is a digest" {
  _world
  for wrong in latest sha256:abc "$DIGEST;" ''; do
    fails scripts/image promote "$wrong"
    fails scripts/image verify "$wrong"
  done
  fails scripts/image tag "$DIGEST"
  not_called docker
}
