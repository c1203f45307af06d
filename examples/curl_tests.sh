#!/bin/sh
# The example of the contract, by curl: POST four flow keys, GET them back.
# Usage: examples/curl_tests.sh [BASE_URL]      (default http://127.0.0.1:8080)
# It takes hours of its own (the present second), so it holds on a system that has data already.
set -eu

base=${1:-http://127.0.0.1:8080}
first=${FIRST_HOUR:-$(date +%s)}
second=$((first + 1))
third=$((first + 2))
failures=0

expect() { # name, expected, actual
    if [ "$2" = "$3" ]; then
        printf 'ok    %s\n' "$1"
    else
        failures=$((failures + 1))
        printf 'FAIL  %s\n      expected %s\n      got      %s\n' "$1" "$2" "$3"
    fi
}
status() { curl -sS -o /dev/null -w '%{http_code}' "$@"; }
json='Content-Type: application/json'

answer=$(curl -sS "$base/flows" -H "$json" -d "[
  {\"src_app\":\"foo\",\"dest_app\":\"bar\",\"vpc_id\":\"vpc-0\",\"bytes_tx\":100,\"bytes_rx\":300,\"hour\":$first},
  {\"src_app\":\"foo\",\"dest_app\":\"bar\",\"vpc_id\":\"vpc-0\",\"bytes_tx\":200,\"bytes_rx\":600,\"hour\":$first},
  {\"src_app\":\"baz\",\"dest_app\":\"qux\",\"vpc_id\":\"vpc-0\",\"bytes_tx\":100,\"bytes_rx\":500,\"hour\":$first},
  {\"src_app\":\"baz\",\"dest_app\":\"qux\",\"vpc_id\":\"vpc-0\",\"bytes_tx\":100,\"bytes_rx\":500,\"hour\":$second},
  {\"src_app\":\"baz\",\"dest_app\":\"qux\",\"vpc_id\":\"vpc-1\",\"bytes_tx\":100,\"bytes_rx\":500,\"hour\":$second}]")
case $answer in
    '{"accepted":5,"position":"'*) printf 'ok    POST of five flows\n' ;;
    *) failures=$((failures + 1)); printf 'FAIL  POST of five flows: %s\n' "$answer" ;;
esac

row() { printf '{"src_app":"%s","dest_app":"%s","vpc_id":"%s","hour":%s,"bytes_tx":%s,"bytes_rx":%s}' "$@"; }
expect 'GET of the first hour' \
    "[$(row baz qux vpc-0 "$first" 100 500),$(row foo bar vpc-0 "$first" 300 900)]" \
    "$(curl -sS "$base/flows?hour=$first")"
expect 'GET of the second hour' \
    "[$(row baz qux vpc-0 "$second" 100 500),$(row baz qux vpc-1 "$second" 100 500)]" \
    "$(curl -sS "$base/flows?hour=$second")"
expect 'GET of an hour without flows' '[]' "$(curl -sS "$base/flows?hour=$third")"
expect 'an answer says that it is fresh' 'true' \
    "$(curl -sS -D - -o /dev/null "$base/flows?hour=$first" | tr -d '\r' | sed -n 's/^[Ff]lowagg-[Ff]resh: //p')"

bad="{\"src_app\":\"foo\",\"dest_app\":\"bar\",\"vpc_id\":\"vpc-0\",\"bytes_tx\":-1,\"bytes_rx\":1,\"hour\":$third}"
good="{\"src_app\":\"foo\",\"dest_app\":\"bar\",\"vpc_id\":\"vpc-0\",\"bytes_tx\":1,\"bytes_rx\":1,\"hour\":$third}"
expect 'a batch with one bad flow is refused' 400 "$(status "$base/flows" -H "$json" -d "[$good,$bad]")"
expect 'and nothing of it was kept' '[]' "$(curl -sS "$base/flows?hour=$third")"
expect 'a body that is no JSON' 400 "$(status "$base/flows" -H "$json" -d 'nonsense')"
expect 'a body that is no array' 400 "$(status "$base/flows" -H "$json" -d '{}')"
expect 'an empty array' 200 "$(status "$base/flows" -H "$json" -d '[]')"
expect 'another media type' 415 "$(status "$base/flows" -H 'Content-Type: text/plain' -d '[]')"
expect 'another method' 405 "$(status -X DELETE "$base/flows")"
expect 'GET without an hour' 400 "$(status "$base/flows")"
expect 'GET with a bad hour' 400 "$(status "$base/flows?hour=x")"
expect 'HEAD' 200 "$(status -I "$base/flows?hour=$first")"
expect 'another path' 404 "$(status "$base/nothing")"

if [ "$failures" -gt 0 ]; then
    printf '%s failed\n' "$failures"
    exit 1
fi
printf 'all hold\n'
