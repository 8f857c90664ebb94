# Rules of the documents: their links work, and README.es.md says the same as README.md, as far as a program can tell.
load lib

_without_code() { awk '/^ *```/ { inside = !inside; next } !inside' "$1"; }

_links() { _without_code "$1" | grep -o ']([^)]*)' | sed 's/^](//; s/)$//' | grep -v '^https:' | sort -u || :; }

# The anchors that GitHub makes from English headings.
_anchors() {
  _without_code "$1" | sed -n 's/^##* //p' | tr '[:upper:]' '[:lower:]' | tr -cd 'a-z0-9_ \n-' | tr ' ' '-' |
    awk '{ print seen[$0]++ ? $0 "-" seen[$0] - 1 : $0 }'
}

@test "every link leads somewhere" {
  local document link page anchor
  for document in *.md docs/*.md terraform/*.md; do
    for link in $(_links "$document"); do
      [ "$link" != ../../releases ] || continue # a GitHub page, not a file
      page=${link%%#*} anchor=${link#"${link%%#*}"}
      if [ -n "$page" ]; then page=$(dirname "$document")/$page; else page=$document; fi
      [ -e "$page" ] || _wrong "$document: there is no $link"
      [ -z "$anchor" ] || _anchors "$page" | grep -qxF -e "${anchor#?}" || _wrong "$document: there is no $link"
    done
  done
}

@test "every screenshot is shown somewhere" {
  local picture
  for picture in docs/screenshots/*; do
    grep -qF "screenshots/${picture##*/}" ./*.md docs/*.md || _wrong "no document shows $picture"
  done
}

# Files with people's names or the means to make codes: exports, dumps, answers with secrets. Files that are appended to
# exist already.
@test "what the documents write to files is their owners alone" {
  local written
  written=$(grep -nE '\bapi .*[^>]>[a-z]|pg_dump .*[^>]>[a-z]|: >[a-z]|storage cp "' ./*.md docs/*.md terraform/*.md)
  equals "" "$(grep -v 'umask 077' <<<"$written" || :)"
}

_same_in_both_languages() { # WHAT-PRINTS-IT
  diff <("$1" README.md) <("$1" README.es.md)
}

# Comments are in the page's language; program output is not.
_commands() { awk '/^```/ { inside = !inside; next } inside' "$1" | sed 's/ *# .*//'; }

@test "both languages have the same commands" { _same_in_both_languages _commands; }

_settings() { sed -n 's/^| \(`[A-Z_]*`\) .*/\1/p' "$1"; }

@test "both languages have the same settings" { _same_in_both_languages _settings; }

_headings() { _without_code "$1" | sed -n 's/^\(##*\) .*/\1/p'; }

@test "both languages have the same sections" { _same_in_both_languages _headings; }

# The linked page may exist in Spanish too.
_links_elsewhere() { _links "$1" | grep -v '^README' | sed 's/\.es\.md/.md/'; }

@test "both languages link to the same pages" { _same_in_both_languages _links_elsewhere; }
