# Rules of scripts/fuzz, with stand-ins for cargo and the targets' programs.
load lib

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

@test "all targets run ten million times each" {
  _project
  passes scripts/fuzz
  called_in_order "code * -runs=10000000 *" "list * -runs=10000000 *"
}

@test "an input that fails ends the run" {
  _project 'exit 77'
  fails scripts/fuzz
  not_called "list *"
}

@test "a target that is not there is not built for" {
  _project
  fails scripts/fuzz cod
  says "there is no target cod"
  not_called cargo
}

@test "what is kept is little" {
  # shellcheck disable=SC2016 # its own arguments
  _project 'for file in {1..150}; do echo "$file" >"${*: -3:1}/$file"; done'
  passes scripts/fuzz --keep code
  equals 100 "$(find fuzz/corpus/code -type f | wc -l | xargs)"
}

@test "cargo fuzz is installed where it is missing" {
  _project
  rm "$scratch/bin/cargo-fuzz"
  PATH=$scratch/bin:/usr/bin:/bin passes scripts/fuzz code
  called_in_order "cargo install * cargo-fuzz@*" "cargo fuzz build *"
}
