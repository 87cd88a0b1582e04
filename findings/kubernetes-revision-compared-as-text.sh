#!/usr/bin/env bash
# Kubernetes 1.36.3: the `data` of a ControllerRevision may not change, and whether it has is decided by comparing its
# text, which the API server itself writes anew when a patch is applied: with `>` as \u003e. So one whose data has
# `<`, `>` or `&` in it cannot be labelled (nor orphaned: the garbage collector patches, and hangs), and one that is sent
# back as it was read is refused for the order of its keys. `kubectl label` says: data: field is immutable.
# apps/v1 says: "once a ControllerRevision has been successfully created, it can not be updated", and that its Data is
# immutable; labels are neither.
# For vibeD: a version is one text below one key, in ASCII without these characters.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
version=36.3
cd "$work"
{
  echo "module finding"
  echo "go 1.26.0"
  echo "require k8s.io/kubernetes v1.$version"
  echo "replace ("
  for name in api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap \
    code-generator component-base component-helpers controller-manager cri-api cri-client cri-streaming csi-translation-lib \
    dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy \
    kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission sample-apiserver sample-cli-plugin \
    sample-controller streaming; do
    echo "  k8s.io/$name => k8s.io/$name v0.$version"
  done
  echo ")"
} > go.mod
cat > main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	"k8s.io/kubernetes/pkg/registry/apps/controllerrevision"
)

var codec = legacyscheme.Codecs.LegacyCodec(appsv1.SchemeGroupVersion)

func decoded(text []byte) runtime.Object {
	object, err := runtime.Decode(codec, text)
	if err != nil {
		panic(err)
	}
	return object
}

// As the API server applies a merge patch (apiserver, pkg/endpoints/handlers/patch.go), and asks whether it may.
func labelled(data string) string {
	stored := decoded([]byte(`{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":` +
		`{"name":"one","namespace":"default","resourceVersion":"1"},"revision":1,"data":` + data + `}`))
	text, err := runtime.Encode(codec, stored)
	if err != nil {
		panic(err)
	}
	patched, err := jsonpatch.MergePatch(text, []byte(`{"metadata":{"labels":{"mark":"yes"}}}`))
	if err != nil {
		panic(err)
	}
	refused := controllerrevision.Strategy.ValidateUpdate(context.Background(), decoded(patched), stored)
	if len(refused) > 0 {
		return "refused: " + string(refused[0].Type)
	}
	return "labelled"
}

func main() {
	plain, angle := labelled(`{"a":"one"}`), labelled(`{"a":"one > none"}`)
	fmt.Println("Kubernetes 1.36.3, a label on a ControllerRevision with data")
	fmt.Println(`  {"a":"one"}:       `, plain)
	fmt.Println(`  {"a":"one > none"}:`, angle, "(expected: labelled)")
	if plain != "labelled" || angle == "labelled" {
		os.Exit(1)
	}
}
GO
GOFLAGS=-mod=mod GOTOOLCHAIN=local go run .
