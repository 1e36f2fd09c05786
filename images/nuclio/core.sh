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

    # In a pod of 0.1 CPU pip needs 5 s to find that nothing is missing, and Python 0.2 s to say its version.
    function run_python {
        if [ "$*" = "$1 --version" ] && [ -n "$PYTHON_VERSION" ]; then
            echo "Python $PYTHON_VERSION" && return
        fi
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
    if hash python3 2>/dev/null; then
        for word in python3 "${BASH_CMDS[python3]}"; do
            eval "function $word { run_python ${BASH_CMDS[python3]} \"\$@\"; }"
        done
    fi
    unset previous word
    ;;
esac
