# Rules of scripts/static-analysis and scripts/tools, without the linters themselves.
load lib

_project() {
  mkdir -p "$scratch/project/scripts/lib" "$scratch/project/target/test-tools/bin"
  cp scripts/static-analysis scripts/tools "$scratch/project/scripts"
  cp scripts/lib/{common,system,pages}.sh "$scratch/project/scripts/lib"
  cd "$scratch/project"
  echo "a==1" >scripts/requirements.txt
  stand_in pip
  mv "$scratch/bin/pip" target/test-tools/bin
}

@test "the hooks of pre commit are the parts" {
  equals "$(sed -n 's/.*set -- \(.*\) ;;/\1/p' scripts/static-analysis | xargs -n 1 | sort)" \
    "$(sed -n 's/^ *entry: scripts\/static-analysis //p' .pre-commit-config.yaml | sort)"
}

@test "a part that fails fails the whole" {
  _project
  stand_in typos <<<'exit 2'
  stand_in yamllint
  fails scripts/static-analysis words yaml
  not_called yamllint
}

@test "only the parts that are named run" {
  _project
  stand_in yamllint
  passes scripts/static-analysis yaml
  equals 2 "$(wc -l <"$scratch/calls" | xargs)" # pip and yamllint
}

@test "an unknown part fails" {
  _project
  fails scripts/static-analysis no-such-part
  says "only these:"
}

@test "a dashboard that grafana does not know fails before its queries are tried" {
  _project
  stand_in promtool
  stand_in python3
  passes scripts/static-analysis watching
  called_in_order 'python3 scripts/lib/dashboard.py monitoring/grafana.json' 'promtool test rules * target/dashboard.test.yml'
  : >"$scratch/calls"
  stand_in python3 <<<'exit 1'
  fails scripts/static-analysis watching
  not_called promtool
}

@test "terraform is tested with the provider of the registry" {
  _project
  stand_in terraform
  stand_in curl
  passes scripts/static-analysis terraform
  called_in_order "terraform fmt -check" "init -backend=false" validate "terraform -chdir=terraform test"
}

@test "without a registry the format of terraform is checked but not in ci" {
  _project
  stand_in terraform <<<'[[ $* != *init* ]]'
  stand_in curl <<<'exit 6'
  passes scripts/static-analysis terraform
  says "only the format was checked"
  fails env GITHUB_ACTIONS=true scripts/static-analysis terraform
}

@test "a stand in for the provider is used where it lies" {
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

@test "the tools are installed by hash and once" {
  _project
  passes scripts/tools
  passes scripts/tools
  equals 1 "$(calls 'pip install * --require-hashes -r scripts/requirements.txt')"
  echo "a==2" >scripts/requirements.txt
  passes scripts/tools
  equals 2 "$(calls 'pip install')"
}

@test "tools that could not be installed are tried again" {
  _project
  printf '#!/bin/sh\nexit 1\n' >target/test-tools/bin/pip
  passes scripts/tools
  says "using those on the PATH"
  [ ! -e target/test-tools/requirements.txt ]
}

@test "a command finds the tools before others" {
  _project
  printf '#!/bin/sh\necho ours "$@"\n' >target/test-tools/bin/typos
  chmod +x target/test-tools/bin/typos
  stand_in typos
  passes scripts/tools typos --version
  says "ours --version"
}
