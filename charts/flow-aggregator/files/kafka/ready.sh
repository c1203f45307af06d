#!/bin/bash
# Ready once the broker answers a request (ApiVersions, version 0): its port is open long before that.
exec 3<>/dev/tcp/127.0.0.1/9092 || exit 1
printf '\0\0\0\12\0\22\0\0\0\0\0\1\377\377' >&3
[ "$(timeout 2 head -c 8 <&3 | wc -c)" -eq 8 ]
