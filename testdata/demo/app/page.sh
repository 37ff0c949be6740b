#!/bin/sh
# Writes a page with a greeting to standard output.
cat <<PAGE
<!doctype html>
<title>demo</title>
<h1>$1</h1>
<p>See <a href="words.txt">words.txt</a>.</p>
PAGE
