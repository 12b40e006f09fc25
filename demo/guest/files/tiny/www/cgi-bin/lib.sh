# Sourced by the writers. Every answer `ok` means: on the disk, not only in memory.
answer() { # status, text
  printf 'Status: %s\r\nContent-Type: text/plain\r\n\r\n%s\n' "$1" "$2"
  exit
}

parameter() { # name, default: a number from the query string
  value=$2
  case "&$QUERY_STRING" in *"&$1="*)
    value="&$QUERY_STRING"
    value=${value#*"&$1="}
    value=${value%%&*}
    ;;
  esac
  case $value in '' | *[!0-9]*) answer '400 Bad Request' "$1 is not a number" ;; esac
}

append() { # file, number
  echo "$2" >>"$1" && sync "$1"
}

mounted() { # labels of disks
  for label; do
    [ -e "/run/$label.mounted" ] || answer '503 Service Unavailable' "no disk $label"
  done
}
