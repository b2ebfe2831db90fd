{{- define "glovebox.cluster" -}}
{{- $classes := list -}}
{{- range .Values.sandbox.runtimeClasses -}}
{{- $classes = append $classes (dict "name" .name "isolation" .isolation "user_namespaces" .userNamespaces) -}}
{{- end -}}
{{- dict
  "namespace" .Values.sandbox.namespace
  "service_account" .Values.sandbox.serviceAccount
  "uid" .Values.sandbox.uid
  "images" .Values.sandbox.images
  "carrier_image" (include "glovebox.image" .)
  "runtime_classes" $classes
  "seccomp_profile" .Values.sandbox.seccompProfile
  "nameserver" .Values.sandbox.nameserver
  "queue" .Values.sandbox.queue
  "priority_class" .Values.sandbox.priorityClass
  "pull_secrets" .Values.imagePullSecrets
  "staging_claim" (required "sandbox.claims.staging is needed" .Values.sandbox.claims.staging)
  "staging_root" "/var/lib/glovebox/staging"
  "outbox_claim" (required "sandbox.claims.outbox is needed" .Values.sandbox.claims.outbox)
  "outbox_root" "/var/lib/glovebox/outbox"
  "start_seconds" .Values.sandbox.startSeconds
  "keep_seconds" .Values.sandbox.keepSeconds
  | toJson -}}
{{- end -}}
