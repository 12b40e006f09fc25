// The baseline: an operator on controller-runtime that does nothing but write statuses.
//
// For each ProtectedServer it writes the status of the given file, so many times one after the other, and once more
// after each change of the spec. lagSeconds counts. There is no engine, no decision, no event and no finalizer: this is
// what watching and writing alone cost, in the language and with the library that most operators are written in.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

var kind = schema.GroupVersionKind{Group: "lifeboat.dev", Version: "v1alpha1", Kind: "ProtectedServer"}

type reconciler struct {
	client.Client
	status map[string]any
	writes int64
}

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	if err := r.Get(ctx, request.NamespacedName, object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	observed, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	written, _, _ := unstructured.NestedInt64(object.Object, "status", "lagSeconds")
	if written >= r.writes && observed == object.GetGeneration() {
		return ctrl.Result{}, nil
	}
	before := object.DeepCopy()
	status := (&unstructured.Unstructured{Object: r.status}).DeepCopy().Object
	status["observedGeneration"] = object.GetGeneration()
	status["lagSeconds"] = written + 1
	for _, each := range status["conditions"].([]any) {
		condition := each.(map[string]any)
		condition["observedGeneration"] = object.GetGeneration()
		condition["lastTransitionTime"] = time.Now().UTC().Format(time.RFC3339)
	}
	object.Object["status"] = status
	// The watch brings what was written, and with it the next turn.
	return ctrl.Result{}, client.IgnoreNotFound(r.Status().Patch(ctx, object, client.MergeFrom(before)))
}

func main() {
	writes := flag.Int64("writes", 1, "how many statuses are written for each new object")
	file := flag.String("status", "", "the file with the status, as JSON")
	flag.Parse()
	log.SetLogger(zap.New())
	if err := run(*file, *writes); err != nil {
		log.Log.Error(err, "it ended")
		os.Exit(1)
	}
}

func run(file string, writes int64) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	status := map[string]any{}
	if err := json.Unmarshal(content, &status); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.QPS = -1 // no limit
	manager, err := ctrl.NewManager(config, ctrl.Options{Metrics: server.Options{BindAddress: "0"}})
	if err != nil {
		return err
	}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	err = ctrl.NewControllerManagedBy(manager).
		For(object).
		WithOptions(controller.Options{MaxConcurrentReconciles: 16}).
		Complete(&reconciler{Client: manager.GetClient(), status: status, writes: writes})
	if err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}
