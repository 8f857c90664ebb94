# Rules of scripts/static-analysis and scripts/tools, without the linters themselves.

_project() {
  mkdir -p "$scratch/project/scripts/lib" "$scratch/project/target/test-tools/bin"
  cp scripts/static-analysis scripts/tools "$scratch/project/scripts"
  cp scripts/lib/{common,system,pages}.sh "$scratch/project/scripts/lib"
  cd "$scratch/project"
  echo "a==1" >scripts/requirements.txt
  stand_in pip
  mv "$scratch/bin/pip" target/test-tools/bin
}

the_hooks_of_pre_commit_are_the_parts() {
  equals "$(sed -n 's/.*set -- \(.*\) ;;/\1/p' scripts/static-analysis | xargs -n 1 | sort)" \
    "$(sed -n 's/^ *entry: scripts\/static-analysis //p' .pre-commit-config.yaml | sort)"
}

a_part_that_fails_fails_the_whole() {
  _project
  stand_in typos <<<'exit 2'
  stand_in yamllint
  fails scripts/static-analysis words yaml
  not_called yamllint
}

only_the_parts_that_are_named_run() {
  _project
  stand_in yamllint
  passes scripts/static-analysis yaml
  equals 2 "$(wc -l <"$scratch/calls" | xargs)" # pip and yamllint
}

an_unknown_part_fails() {
  _project
  fails scripts/static-analysis no-such-part
  says "only these:"
}

terraform_is_tested_with_the_provider_of_the_registry() {
  _project
  stand_in terraform
  stand_in curl
  passes scripts/static-analysis terraform
  called_in_order "terraform fmt -check" "init -backend=false" validate "terraform -chdir=terraform test"
}

without_a_registry_the_format_of_terraform_is_checked_but_not_in_ci() {
  _project
  stand_in terraform <<<'[[ $* != *init* ]]'
  stand_in curl <<<'exit 6'
  passes scripts/static-analysis terraform
  says "only the format was checked"
  fails env GITHUB_ACTIONS=true scripts/static-analysis terraform
}

a_stand_in_for_the_provider_is_used_where_it_lies() {
  _project
  stand_in terraform
  mkdir offline target/terraform-offline target/terraform-offline/bin
  stand_in pip
  stand_in python
  mv "$scratch/bin/pip" "$scratch/bin/python" target/terraform-offline/bin
  passes env TERRAFORM_OFFLINE=offline scripts/static-analysis terraform
  called_in_order "pip install * -r offline/requirements.txt" "python offline/tfcheck.py terraform"
  not_called init
}

the_tools_are_installed_by_hash_and_once() {
  _project
  passes scripts/tools
  passes scripts/tools
  equals 1 "$(calls 'pip install * --require-hashes -r scripts/requirements.txt')"
  echo "a==2" >scripts/requirements.txt
  passes scripts/tools
  equals 2 "$(calls 'pip install')"
}

tools_that_could_not_be_installed_are_tried_again() {
  _project
  printf '#!/bin/sh\nexit 1\n' >target/test-tools/bin/pip
  passes scripts/tools
  says "using those on the PATH"
  [ ! -e target/test-tools/requirements.txt ]
}

a_command_finds_the_tools_before_others() {
  _project
  printf '#!/bin/sh\necho ours "$@"\n' >target/test-tools/bin/typos
  chmod +x target/test-tools/bin/typos
  stand_in typos
  passes scripts/tools typos --version
  says "ours --version"
}
