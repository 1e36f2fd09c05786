#!/bin/sh
# Runs one attempt of a run and writes down how it ended, whoever is still there to see it.
#   shim.sh ATTEMPT_FOLDER WORK_FOLDER COMMAND…
# Exit status: 0 somebody else runs this attempt; 125 the attempt could not be begun.
attempt=$1 work=$2
shift 2

# Who we are: pid, then what tells us from a later process with the same pid.
if [ -r "/proc/$$/stat" ]; then
  read -r born <"/proc/$$/stat"
  read -r boot </proc/sys/kernel/random/boot_id
else
  born=$(ps -o lstart= -p $$) boot=
fi
printf '%s\n' "$$" "$born" "$boot" >"$attempt/claim.$$" || exit 125

# A hard link is made by one process only, and has its content at once. PATH is the function's own.
if ! command -p ln "$attempt/claim.$$" "$attempt/started" 2>/dev/null; then
  [ -e "$attempt/started" ] && exit 0
  echo "dhpy: the attempt cannot be claimed in $attempt"
  exit 125
fi
cd -- "$work" || exit 125

# A trap is not inherited as an ignored signal would be: the command dies of SIGTERM, we do not.
trap : TERM INT HUP QUIT
"$@"
status=$?
printf '%s\n' "$status" >"$attempt/exit.new" && command -p mv "$attempt/exit.new" "$attempt/exit" ||
  exit "$status"
command -p rm -f "$attempt/claim.$$"
# What the command left behind in our session ends with it, as in a container.
kill -KILL 0
