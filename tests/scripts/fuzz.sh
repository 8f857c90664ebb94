# Rules of scripts/fuzz, with stand-ins for cargo and the targets' programs.
# shellcheck shell=bash

_project() {
  local programs=target/fuzz/machine/release target
  mkdir -p "$scratch/project/scripts/lib" "$scratch/project/fuzz/targets" "$scratch/project/$programs"
  cp scripts/fuzz "$scratch/project/scripts"
  cp scripts/lib/common.sh "$scratch/project/scripts/lib"
  cd "$scratch/project"
  stand_in cargo
  stand_in cargo-fuzz
  for target in code list; do
    touch "fuzz/targets/$target.rs"
    mkdir -p "fuzz/corpus/$target"
    stand_in "$target" <<<"${1-}"
    mv "$scratch/bin/$target" "$programs"
  done
}

all_targets_run_ten_million_times_each() {
  _project
  passes scripts/fuzz
  called_in_order "code * -runs=10000000 *" "list * -runs=10000000 *"
}

an_input_that_fails_ends_the_run() {
  _project 'exit 77'
  fails scripts/fuzz
  not_called "list *"
}

a_target_that_is_not_there_is_not_built_for() {
  _project
  fails scripts/fuzz cod
  says "there is no target cod"
  not_called cargo
}

what_is_kept_is_little() {
  # shellcheck disable=SC2016 # its own arguments
  _project 'for file in {1..150}; do echo "$file" >"${*: -3:1}/$file"; done'
  passes scripts/fuzz --keep code
  equals 100 "$(find fuzz/corpus/code -type f | wc -l | xargs)"
}

cargo_fuzz_is_installed_where_it_is_missing() {
  _project
  rm "$scratch/bin/cargo-fuzz"
  PATH=$scratch/bin:/usr/bin:/bin passes scripts/fuzz code
  called_in_order "cargo install * cargo-fuzz@*" "cargo fuzz build *"
}
