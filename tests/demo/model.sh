# shellcheck shell=bash disable=SC2154  # its variables are those of lib.sh
# Who answers: the real model or the stand-in; and how the app is told. Sourced by demo.sh.

choose_model() {
    local answer
    model=${MODEL:-}
    if [[ -z $model && -n ${ANTHROPIC_API_KEY:-} && -t 0 && -t 1 ]]; then
        read -rp "ANTHROPIC_API_KEY is set. Shall the real model answer? It costs about a cent. [Y/n] " answer
        [[ $answer == [nN]* ]] && model=standin || model=anthropic
    fi
    case ${model:=standin} in
    anthropic)
        [[ -n ${ANTHROPIC_API_KEY:-} ]] || fail "MODEL=anthropic needs ANTHROPIC_API_KEY"
        say "The real model answers, with your key."
        ;;
    standin)
        say "A stand-in answers for the model: it follows a script, and calls the tools for real."
        [[ -n ${ANTHROPIC_API_KEY:-} ]] || say "With ANTHROPIC_API_KEY set, the real model does."
        ;;
    *) fail "MODEL=$model: use anthropic or standin" ;;
    esac
}

# apply_key: the Secret that k8s/examples/chat.yaml names. The key is on no command line, which others could read.
apply_key() {
    show kubectl -n "$namespace" create secret generic anthropic '--from-literal=api-key=…'
    local key=not-needed-by-the-stand-in
    [[ $model == standin ]] || key=$ANTHROPIC_API_KEY
    printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: anthropic}\ndata: {api-key: %s}\n' "$(printf %s "$key" | base64 -w0)" |
        kube apply -f - | indent
}

# apply_model: points the app to whoever answers. Null takes an earlier demo's choice back.
apply_model() {
    local url=null env=null
    case $model in
    standin)
        from_registry tests/demo/model-standin.yaml | kube apply -f - | indent
        url='"http://model-standin:8787"'
        ;;
    anthropic)
        if declare -F cluster_way_out >/dev/null; then
            env="[{\"name\":\"HTTPS_PROXY\",\"value\":\"$(cluster_way_out)\"}]"
        fi
        ;;
    esac
    run kubectl -n "$namespace" patch mcpapp chat --type merge --patch "{\"spec\":{\"model\":{\"baseUrl\":$url},\"env\":$env}}"
    [[ $model != standin ]] || kube rollout status deployment/model-standin --timeout=90s | indent
}
