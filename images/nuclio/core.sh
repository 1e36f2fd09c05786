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

    # In a pod of 0.1 CPU pip needs 5 s to find that nothing is missing, Python 0.4 s to look at the names of what
    # is installed, and 0.2 s to say its version.
    function run_python {
        if [ "$*" = "$1 --version" ] && [ -n "$PYTHON_VERSION" ]; then
            echo "Python $PYTHON_VERSION" && return
        fi
        if [ "$2 $3 $4" = "-m pip install" ]; then
            [ "$# $5 $6" = "7 --user -r" ] && are_installed "$7" "${1%/bin/*}" && return
            # The script makes 1 of every status; this one is told apart.
            command "$1" -m digitalhub_runtime_python.nuclio.installing "${@:4}" || exit
            return
        fi
        command "$@"
    }

    # Whether a requirements file has nothing but names, or name==version, of what lies in Python's own folder.
    function are_installed {
        local there=" " line version
        [[ $PYTHON_VERSION =~ [0-9]+\.[0-9]+ ]]
        for line in "$2/lib/python${BASH_REMATCH[0]}/site-packages/"*.dist-info; do
            line=${line##*/} line=${line%.dist-info} line=${line,,}
            version=${line#*-} line=${line%%-*} line=${line//[_.]/-}
            there+="$line $line==$version "
        done
        while read -r line || [ -n "$line" ]; do
            case "$line" in
            "" | "#"*) continue ;;
            *[!A-Za-z0-9._=-]*) return 1 ;;
            esac
            line=${line,,} version=${line#"${line%%==*}"} line=${line%%==*}
            [[ $there == *" ${line//[_.]/-}$version "* ]] || return 1
        done <"$1" && echo "Requirements already satisfied: $1"
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
