# Rules of the documents: their links work, and README.es.md says the same as README.md, as far as a program can tell.
# shellcheck shell=bash

_without_code() { awk '/^ *```/ { inside = !inside; next } !inside' "$1"; }

_links() { _without_code "$1" | grep -o ']([^)]*)' | sed 's/^](//; s/)$//' | grep -v '^https:' | sort -u || :; }

# The anchors that GitHub makes from English headings.
_anchors() {
  _without_code "$1" | sed -n 's/^##* //p' | tr '[:upper:]' '[:lower:]' | tr -cd 'a-z0-9_ \n-' | tr ' ' '-' |
    awk '{ print seen[$0]++ ? $0 "-" seen[$0] - 1 : $0 }'
}

every_link_leads_somewhere() {
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

every_screenshot_is_shown_somewhere() {
  local picture
  for picture in docs/screenshots/*; do
    grep -qF "screenshots/${picture##*/}" ./*.md docs/*.md || _wrong "no document shows $picture"
  done
}

# Files with people's names or the means to make codes: exports, dumps, answers with secrets. Files that are appended to
# exist already.
what_the_documents_write_to_files_is_their_owners_alone() {
  local written
  written=$(grep -nE '\bapi .*[^>]>[a-z]|pg_dump .*[^>]>[a-z]|: >[a-z]|storage cp "' ./*.md docs/*.md terraform/*.md)
  equals "" "$(grep -v 'umask 077' <<<"$written" || :)"
}

_same_in_both_languages() { # WHAT-PRINTS-IT
  diff <("$1" README.md) <("$1" README.es.md)
}

# Comments are in the page's language; program output is not.
_commands() { awk '/^```/ { inside = !inside; next } inside' "$1" | sed 's/ *# .*//'; }

both_languages_have_the_same_commands() { _same_in_both_languages _commands; }

_settings() { sed -n 's/^| \(`[A-Z_]*`\) .*/\1/p' "$1"; }

both_languages_have_the_same_settings() { _same_in_both_languages _settings; }

_headings() { _without_code "$1" | sed -n 's/^\(##*\) .*/\1/p'; }

both_languages_have_the_same_sections() { _same_in_both_languages _headings; }

# The linked page may exist in Spanish too.
_links_elsewhere() { _links "$1" | grep -v '^README' | sed 's/\.es\.md/.md/'; }

both_languages_link_to_the_same_pages() { _same_in_both_languages _links_elsewhere; }
