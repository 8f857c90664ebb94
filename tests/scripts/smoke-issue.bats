# Rules of scripts/smoke-issue: one issue, open as long as something fails.
load lib

stg=sha256:$(printf 'a%.0s' {1..64})
prd=sha256:$(printf 'b%.0s' {1..64})

_world() {
  export stg prd
  # What serves, by commit.
  echo '{"revision": "commit-of-stg"}' >"$scratch/stg.example"
  echo '{"revision": "commit-of-prd"}' >"$scratch/prd.example"
  export GITHUB_REPOSITORY=Someone/Tickets GITHUB_RUN_ID=99 BASE_URL_STG=https://stg.example BASE_URL_PRD=https://prd.example
  export SMOKE_KEY_STG=key-of-stg SMOKE_KEY_PRD=key-of-prd
  : >"$scratch/open"
  : >"$scratch/failing"
  _attested "$(git rev-parse HEAD)" '.'
  stand_in docker <<'SH'
case "$1 $2 ${3-}" in
  "buildx imagetools inspect") case $4 in *:commit-of-stg) echo "$stg" ;; *:commit-of-prd) echo "$prd" ;; esac; exit ;;
  "run "*) ;;
  *) exit 0 ;;
esac
echo "$SMOKE_KEY" >>"$scratch/keys"
echo "admit 12 ms at ${!#}"
! grep -qxF "${!#}" "$scratch/failing"
SH
  stand_in curl <<'SH'
url=${!#}
url=${url#https://}
cat "$scratch/${url%/health}"
SH
  stand_in gh <<'SH'
case "$*" in
  "attestation verify "*) cat "$scratch/attestations" ;;
  "api repos/Someone/Tickets/git/commits/"*" --jq .tree.sha") cat "$scratch/tree" ;;
  "issue list "*) cat "$scratch/open" ;;
  "issue create "* | "issue edit "*)
    while [ "$1" != --body-file ]; do shift; done
    cp "$2" "$scratch/body"
    ;;
esac
SH
}

# The output of `gh attestation verify --format json` for an image of a commit, with a jq filter applied to the
# certificate.
_attested() { # COMMIT FILTER
  git rev-parse "$1^{tree}" >"$scratch/tree" 2>/dev/null || echo "$1" >"$scratch/tree"
  jq -n --arg commit "$1" '{
    sourceRepositoryDigest: $commit, buildSignerDigest: $commit, buildConfigDigest: $commit,
    buildConfigURI: "https://github.com/Someone/Tickets/.github/workflows/pr-validations.yml@refs/pull/3/merge",
    runInvocationURI: "https://github.com/Someone/Tickets/actions/runs/7/attempts/1"
  } | '"$2"' | [{verificationResult: {signature: {certificate: .}}}]' >"$scratch/attestations"
}

_no_key_is_given() {
  fails scripts/smoke-issue
  not_called 'docker run'
  [ ! -e "$scratch/keys" ]
  called 'gh issue create --repo Someone/Tickets --title Smoke fails: stg prd'
}

@test "while all is well there is no issue" {
  _world
  passes scripts/smoke-issue
  called "docker run --rm --read-only --env SMOKE_KEY ghcr.io/someone/tickets@$stg smoke --url https://stg.example"
  called "docker run --rm --read-only --env SMOKE_KEY ghcr.io/someone/tickets@$prd smoke --url https://prd.example"
  not_called 'gh issue create'
  not_called 'gh issue edit'
  not_called 'gh issue close'
}

# Anyone who may push packages can move a tag: the image that gets the key is verified first, and named by its digest.
@test "the key is given to what was proven and nothing else" {
  _world
  passes scripts/smoke-issue
  called_in_order "gh attestation verify oci://ghcr.io/someone/tickets@$stg --repo Someone/Tickets --signer-workflow Someone/Tickets/.github/workflows/build-image.yml --deny-self-hosted-runners" \
    "docker run * ghcr.io/someone/tickets@$stg"
  not_called 'docker run * ghcr.io/someone/tickets:'
  not_called 'docker pull'
}

# After a roll-back that is not the newest image.
@test "the program is that of the release that serves" {
  _world
  echo '{"revision": "commit-of-stg"}' >"$scratch/prd.example"
  passes scripts/smoke-issue
  called "docker run * ghcr.io/someone/tickets@$stg smoke --url https://prd.example"
}

@test "a service that does not say what it is gets no key" {
  _world
  rm "$scratch/stg.example"
  echo '{"revision": null}' >"$scratch/prd.example"
  _no_key_is_given
  grep -F '/health names no revision' "$scratch/body"
}

@test "an image without an attestation gets no key" {
  _world
  echo '[]' >"$scratch/attestations"
  _no_key_is_given
  grep -F 'no attestation says' "$scratch/body"
}

@test "an image of a branch gets no key" {
  _world
  _attested "$(printf 'd%.0s' {1..40})" '.'
  _no_key_is_given
}

@test "an image whose workflow is of another commit gets no key" {
  _world
  _attested "$(git rev-parse HEAD)" '.buildSignerDigest = "another"'
  _no_key_is_given
}

@test "what production serves may be older than main" {
  _world
  _attested "$(git rev-list HEAD | tail -n 1)" '.'
  passes scripts/smoke-issue
}

@test "what production serves may be a hot fix" {
  mkdir "$scratch/project"
  cp -r scripts Cargo.toml "$scratch/project"
  cd "$scratch/project"
  committed
  touch fix
  git add fix
  git commit --quiet -m fix
  _world
  _attested HEAD '.'
  git update-ref refs/remotes/origin/release/1.2 HEAD
  git reset --quiet --hard HEAD~1
  passes scripts/smoke-issue
  git update-ref refs/remotes/origin/fix/1 refs/remotes/origin/release/1.2
  git update-ref -d refs/remotes/origin/release/1.2
  fails scripts/smoke-issue
}

@test "the workflow has the history and may read the proof" {
  local workflow=.github/workflows/smoke.yml
  grep -qF "if: github.ref == 'refs/heads/main'" $workflow
  grep -qF 'fetch-depth: 0' $workflow
  grep -qF 'attestations: read' $workflow
}

@test "each environment has its key and none is an argument" {
  _world
  passes scripts/smoke-issue
  equals "key-of-stg key-of-prd" "$(paste -sd ' ' "$scratch/keys")"
  not_called key-of
}

@test "a failure opens an issue" {
  _world
  echo https://prd.example >"$scratch/failing"
  fails scripts/smoke-issue
  called 'gh label create smoke'
  called 'gh issue create --repo Someone/Tickets --title Smoke fails: prd --label smoke'
  grep -Fx '### stg passed' "$scratch/body"
  grep -Fx '### prd failed' "$scratch/body"
  grep -Fx '    admit 12 ms at https://prd.example' "$scratch/body"
  grep -F https://github.com/Someone/Tickets/actions/runs/99 "$scratch/body"
}

@test "a failure of the first does not hide the second" {
  _world
  printf '%s\n' https://stg.example https://prd.example >"$scratch/failing"
  fails scripts/smoke-issue
  called '--title Smoke fails: stg prd'
}

@test "a lasting failure updates the one issue" {
  _world
  echo 5 >"$scratch/open"
  echo https://stg.example >"$scratch/failing"
  fails scripts/smoke-issue
  called 'gh issue edit 5 --repo Someone/Tickets --title Smoke fails: stg'
  not_called 'gh issue create'
}

@test "recovery closes the issue" {
  _world
  echo 5 >"$scratch/open"
  passes scripts/smoke-issue
  called 'gh issue close 5 --repo Someone/Tickets --comment Recovered: stg prd.'
}

@test "an environment without an address is left out and that is said" {
  _world
  unset BASE_URL_PRD
  passes scripts/smoke-issue
  says '::notice::prd is skipped: BASE_URL_PRD is not set'
  not_called https://prd.example
}

@test "what was not asked has not recovered" {
  _world
  echo 5 >"$scratch/open"
  unset BASE_URL_PRD BASE_URL_STG
  passes scripts/smoke-issue
  not_called 'gh issue close'
}

@test "an image that cannot be fetched is a failure" {
  _world
  stand_in docker <<<'echo "manifest unknown" >&2; exit 125'
  fails scripts/smoke-issue
  called 'gh issue create'
  grep -F 'manifest unknown' "$scratch/body"
}

@test "a github that does not answer is a failure" {
  _world
  stand_in gh <<<'exit 1'
  fails scripts/smoke-issue
}
