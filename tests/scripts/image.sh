# Rules of scripts/image: an image is only used if it is proven to be built from this very tree.
# shellcheck shell=bash

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

the_image_of_this_tree_is_found() {
  _world
  equals "$DIGEST" "$(scripts/image find)"
  called "gh attestation verify oci://ghcr.io/someone/tickets@$DIGEST --repo Someone/Tickets --signer-workflow Someone/Tickets/.github/workflows/build-image.yml --deny-self-hosted-runners"
  called "gh api repos/Someone/Tickets/git/commits/$BUILT"
}

there_is_none_without_its_tag() {
  _world
  rm -r "$scratch/tags"
  fails scripts/image find
  says 'no image has the tag tree-'
}

a_tag_without_an_attestation_proves_nothing() {
  _world
  stand_in gh <<<'exit 1'
  _none_is_found
  says 'no attestation proves it'
}

no_attestations_prove_nothing() {
  _world
  echo '[]' >"$scratch/attestations"
  _none_is_found
}

# Somebody moved the tag to an image that was properly built, but from another tree.
the_image_of_another_tree_is_not_taken() {
  _world
  printf 'd%.0s' {1..40} >"$scratch/tree"
  _none_is_found
}

a_commit_that_github_no_longer_has_proves_nothing() {
  _world
  rm "$scratch/tree"
  _none_is_found
}

# build-image.yml of another commit may have built anything.
a_build_by_the_workflow_of_another_commit_is_not_taken() {
  _world
  _attested '.buildSignerDigest = "eeee"'
  _none_is_found
}

a_caller_of_another_commit_is_not_taken() {
  _world
  _attested '.buildConfigDigest = "eeee"'
  _none_is_found
}

the_image_of_a_pull_request_that_failed_is_not_taken() {
  _world
  echo failure >"$scratch/conclusion"
  _none_is_found
  says 'no successful run of pr-validations'
}

the_image_of_a_run_that_still_runs_is_not_taken() {
  _world
  echo null >"$scratch/conclusion"
  _none_is_found
}

the_image_of_another_workflow_is_not_found() {
  _world
  _attested '.buildConfigURI = "https://github.com/Someone/Tickets/.github/workflows/other.yml@refs/heads/a"'
  _none_is_found
}

a_promoted_image_keeps_its_digest() {
  _world
  equals "docker.io/someone/register-ticket-api@$DIGEST" "$(scripts/image promote "$DIGEST")"
  called "docker buildx imagetools create --prefer-index=false --tag docker.io/someone/register-ticket-api:$(git rev-parse HEAD) ghcr.io/someone/tickets@$DIGEST"
  not_called 'docker build '
}

an_image_of_another_version_is_not_promoted() {
  _world
  echo 9.9.9 >"$scratch/version"
  fails scripts/image promote "$DIGEST"
  says "labelled '9.9.9'"
  GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v9.9.9 fails scripts/image promote "$DIGEST"
  says 'the tag is v9.9.9'
  not_called 'docker buildx imagetools create'
}

another_digest_after_the_copy_is_an_error() {
  _world
  touch "$scratch/wraps"
  fails scripts/image promote "$DIGEST"
  not_says "register-ticket-api@$DIGEST"
  says "not $DIGEST"
}

what_is_not_proven_is_not_promoted() {
  _world
  printf 'd%.0s' {1..40} >"$scratch/tree"
  fails scripts/image promote "$DIGEST"
  fails scripts/image tag "$DIGEST" latest
  not_called 'docker buildx imagetools create'
}

# Built on main by cd-stg, whose run is still in progress.
an_image_built_on_main_is_promoted() {
  _world
  _attested '.buildConfigURI = "https://github.com/Someone/Tickets/.github/workflows/cd-stg.yml@refs/heads/main"'
  passes scripts/image promote "$DIGEST"
}

tags_are_moved_to_the_digest() {
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

a_repeated_run_brings_nothing_back_that_another_run_replaced() {
  _repeated 6
  fails scripts/image tag "$DIGEST" latest
  says 'this repeats run 5 of cd-stg.yml, but run 6 came since'
  fails scripts/image promote "$DIGEST"
  not_called 'docker buildx imagetools create'
  GITHUB_RUN_ATTEMPT=1 passes scripts/image promote "$DIGEST"
}

the_newest_run_may_be_repeated() {
  _repeated 5
  passes scripts/image tag "$DIGEST" latest
  passes scripts/image promote "$DIGEST"
}

a_github_that_does_not_tell_the_newest_run_is_a_refusal() {
  _repeated ''
  fails scripts/image promote "$DIGEST"
  not_called 'docker buildx imagetools create'
}

# _published LATEST: the last step of release.yml, for v1.2.3, where LATEST is then the latest release.
_published() {
  echo "$1" >"$scratch/latest"
  rm -f "$scratch/created"
  stand_in docker
  stand_in gh <<'SH'
case "$*" in
  "release view v1.2.3") [ -e "$scratch/created" ] ;;
  "release create v1.2.3 "*) [ ! -e "$scratch/refused" ] && touch "$scratch/created" ;;
  "release view --json tagName --jq .tagName") cat "$scratch/latest" ;;
  *) exit 1 ;;
esac
SH
  sed -n '/- name: Publish/,$p' .github/workflows/release.yml | sed '1,/run: |/d' >"$scratch/publish"
  IMAGE=ghcr.io/someone/tickets DIGEST=$DIGEST GITHUB_REF_NAME=v1.2.3 bash -eo pipefail "$scratch/publish"
}

latest_moves_once_its_release_is_there() {
  passes _published v1.2.3
  called_in_order 'gh release create v1.2.3' \
    "docker buildx imagetools create --tag ghcr.io/someone/tickets:latest ghcr.io/someone/tickets@$DIGEST"
  equals 1 "$(grep -c ':latest"' .github/workflows/release.yml)"
}

latest_stays_where_another_release_is_newer_or_none_was_made() {
  passes _published v1.3.0
  called 'gh release create v1.2.3'
  touch "$scratch/refused"
  fails _published v1.2.3
  not_called 'docker buildx imagetools create'
}

tokens_reach_docker_by_its_input() {
  _world
  GH_TOKEN=token-of-github DOCKERHUB_TOKEN=token-of-docker passes scripts/image promote "$DIGEST"
  equals token-of-github "$(cat "$scratch/login-ghcr.io")"
  equals token-of-docker "$(cat "$scratch/login-docker.io")"
  not_called token-of
}

a_digest_is_a_digest() {
  _world
  for wrong in latest sha256:abc "$DIGEST;" ''; do
    fails scripts/image promote "$wrong"
    fails scripts/image verify "$wrong"
  done
  fails scripts/image tag "$DIGEST"
  not_called docker
}
