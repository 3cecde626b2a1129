#!/bin/sh
# The native client starts this where it has lost the daemon or was interrupted twice. It expects the
# Python client, which would run the command once more: a deployment, say.
echo 'pants: interrupted, or the daemon ended while it ran this: .pants.d/pants.log says which.' >&2
exit 1
