# Read by bash ($BASH_ENV) before a script. Only DigitalHub Core's entrypoint.sh is meant; it stays as it is,
# but for two commands of it that are functions here.
case "$0" in
*/entrypoint.sh)
    unset BASH_ENV

    # A shell that waits for its child as process 1 hears no SIGTERM, and the script turns every exit status
    # into 1: so the processor takes the shell's place. tini reaps what a function leaves behind.
    function run_processor {
        if [ $$ = 1 ] && [ -x /usr/bin/tini ]; then
            exec /usr/bin/tini -- "$@"
        fi
        exec "$@"
    }

    # pip needs half a second of CPU to find that nothing is missing, which is 5 s in a pod of 0.1 CPU.
    function run_python {
        if [ "$2 $3 $4" = "-m pip install" ]; then
            command "$1" -m digitalhub_runtime_python.nuclio.installed "${@:5}" && return
        fi
        command "$@"
    }

    previous=
    for word in "$@"; do
        case "$previous$word" in
        --processor/*) eval "function $word { run_processor $word \"\$@\"; }" ;;
        esac
        previous=$word
    done
    hash python3 2>/dev/null && eval "function ${BASH_CMDS[python3]} { run_python ${BASH_CMDS[python3]} \"\$@\"; }"
    unset previous word
    ;;
esac
