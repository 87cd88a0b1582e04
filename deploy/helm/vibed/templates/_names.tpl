{{/* What several templates say alike. Names are fixed (the processes find each other by them): one vibeD a namespace. */}}

{{/* Labels of everything; takes [root, component]. */}}
{{- define "vibed.labels" -}}
{{- $root := index . 0 -}}
{{ include "vibed.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects a process' pods; takes [root, component]. */}}
{{- define "vibed.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: vibed
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* An image of vibeD; takes [root, name]. The tag is the chart's appVersion and nothing else. */}}
{{- define "vibed.image" -}}
{{- $root := index . 0 -}}
{{ printf "%s/%s:%s" (trimSuffix "/" $root.Values.images.registry) (index . 1) $root.Chart.AppVersion }}
{{- end }}

{{/* How visitors reach the domain. */}}
{{- define "vibed.url" -}}
{{- if .Values.url }}{{ .Values.url }}
{{- else if or (ne .Values.tls.mode "none") (and .Values.ingress.enabled .Values.ingress.tlsSecretName) }}https://{{ .Values.domain }}
{{- else if eq .Values.domain "localhost" }}http://localhost:18080
{{- else }}http://{{ .Values.domain }}
{{- end }}
{{- end }}

{{- define "vibed.keys" -}}{{ .Values.keys.namespace | default (printf "%s-keys" .Release.Namespace) }}{{- end }}

{{/* What may not be, although each value by itself may. */}}
{{- define "vibed.validated" -}}
{{- if eq .Values.sandboxes.namespace .Release.Namespace }}
{{- fail "sandboxes.namespace must be another namespace than the release's: hostile pods are not beside the control plane's Secrets" }}
{{- end }}
{{- if eq (include "vibed.keys" .) .Release.Namespace }}
{{- fail "keys.namespace must be another namespace than the release's: who may read keys could read every Secret there" }}
{{- end }}
{{- if not (regexMatch (printf "^(https?://%s(:[0-9]+)?)?$" (replace "." "[.]" .Values.domain)) .Values.url) }}
{{- fail "url must be http:// or https://, the value of domain, and perhaps a port" }}
{{- end }}
{{- if and (eq .Values.tls.mode "acme-dns") (not .Values.tls.acme.provider) }}
{{- fail "tls.mode is `acme-dns`: name the DNS provider in tls.acme.provider, and its credentials in tls.acme.credentialsSecret" }}
{{- end }}
{{- if and (eq .Values.tls.mode "secret") (not .Values.tls.secretName) }}
{{- fail "tls.mode is `secret`: name the Secret with the certificate in tls.secretName" }}
{{- end }}
{{- if and (ne .Values.tls.mode "none") (eq .Values.domain "localhost") }}
{{- fail "a certificate needs a domain of yours: set domain" }}
{{- end }}
{{- if lt (.Values.config.source_cache_mb | default 1024 | int) (.Values.config.max_source_mb | default 50 | int | mul 4 | int) }}
{{- fail "config.source_cache_mb must be at least four times config.max_source_mb: whoever fetches a source waits until it has room there" }}
{{- end }}
{{- end }}

{{/* A value as TOML. `toToml` would write 50 as 50.0, since Helm's numbers are floats. */}}
{{- define "vibed.toml" -}}
{{- if kindIs "map" . -}}
{ {{- range $i, $key := keys . | sortAlpha }}{{ if $i }},{{ end }} {{ $key | toJson }} = {{ include "vibed.toml" (get $ $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{ range $i, $item := . }}{{ if $i }}, {{ end }}{{ include "vibed.toml" $item }}{{ end }}]
{{- else if or (kindIs "float64" .) (kindIs "int64" .) (kindIs "int" .) -}}
{{- if eq (float64 .) (float64 (int64 .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else -}}
{{ toJson . }}
{{- end }}
{{- end }}

{{/* What the processes share of a pod's specification; takes [root, component]. */}}
{{- define "vibed.pod" -}}
{{- $root := index . 0 -}}
# else Kubernetes sets VIBED_ROUTER_PORT and the like, which mean something else to vibeD
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* One pod a node, and one a zone, where there are several; takes [root, component]. */}}
{{- define "vibed.spread" -}}
topologySpreadConstraints:
{{- range tuple "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "vibed.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{- define "vibed.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Environment of every process of vibeD. */}}
{{- define "vibed.environment" -}}
- {name: VIBED_SUBSTRATE, value: kubernetes}
- {name: VIBED_CONFIG, value: /etc/vibed/vibed.toml}
- {name: VIBED_HOME, value: /var/lib/vibed}
- {name: VIBED_APPS_NAMESPACE, value: {{ .Values.sandboxes.namespace }}}
- {name: VIBED_KEYS_NAMESPACE, value: {{ include "vibed.keys" . }}}
- name: VIBED_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: VIBED_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: VIBED_POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}

{{/* Credentials of the bucket. */}}
{{- define "vibed.s3" -}}
{{- with .Values.sources.s3.existingSecret }}
{{- range tuple "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.sources.s3.existingSecret }}, key: {{ . }}}}
{{- end }}
- name: AWS_SESSION_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SESSION_TOKEN, optional: true}}
{{- end }}
{{- end }}

{{- define "vibed.mounts" -}}
- {name: config, mountPath: /etc/vibed/vibed.toml, subPath: vibed.toml, readOnly: true}
- {name: home, mountPath: /var/lib/vibed}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Takes [root, component]. A node evicts a pod that outgrows one of these: vibeD keeps to them (tests/cluster/test_chart.py). */}}
{{- define "vibed.volumes" -}}
{{- $config := (index . 0).Values.config -}}
- name: config
  configMap: {name: vibed-config}
{{- $controls := eq (index . 1) "controller" }}
{{- /* copies of sources, and what arrives; of a controller copies of logs, and what builders download, send and get
(src/vibed/runtimes/pod_disk.py) */}}
{{- $cache := $config.source_cache_mb | default 1024 | int }}
{{- $logs := $config.copied_logs_mb | default 512 | int }}
{{- $source := $config.max_source_mb | default 50 | int }}
- name: home
  emptyDir: {sizeLimit: {{ add $cache 512 ($controls | ternary (add $logs 10240) (add 1024 (mul 2 $source))) }}Mi}
{{- /* of a controller: the largest source while it is packed, unpacked and as an archive, small files by blocks */}}
{{- $expanded := $config.max_expanded_mb | default 600 | int | max 600 }}
{{- $files := $config.max_files | default 20000 | int | max 20000 }}
- name: tmp
  emptyDir: {sizeLimit: {{ $controls | ternary (add 1024 (mul 2 $expanded) (div $files 100)) 1024 }}Mi}
{{- end }}

{{/* The name of a Secret: the chart's own, or the one that the values name. */}}
{{- define "vibed.secret.wire" -}}{{ .Values.secrets.wire | default "vibed-wire" }}{{- end }}
{{- define "vibed.secret.claims" -}}{{ .Values.secrets.claims | default "vibed-claims" }}{{- end }}
{{- define "vibed.secret.sources" -}}{{ .Values.secrets.sources | default "vibed-sources" }}{{- end }}
{{- define "vibed.secret.keys" -}}{{ .Values.secrets.keys | default "vibed-keys" }}{{- end }}

{{/* A ServiceAccount; takes [root, component, name, annotations]. Tokens are mounted where a pod says so, nowhere else. */}}
{{- define "vibed.serviceaccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ index . 2 }}
  labels: {{- include "vibed.labels" . | nindent 4 }}
  {{- with index . 3 }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}

{{/* The ServiceAccount's token, for the containers that talk to the API server. */}}
{{- define "vibed.token.volume" -}}
- name: token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}
{{- define "vibed.token.mount" -}}
- {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end }}

{{/* Binds a Role to a ServiceAccount of the release's namespace; takes [root, component, name, namespace]. */}}
{{- define "vibed.rolebinding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ index . 2 }}
  namespace: {{ index . 3 }}
  labels: {{- include "vibed.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ index . 2 }}}
subjects:
  - {kind: ServiceAccount, name: {{ index . 2 }}, namespace: {{ (index . 0).Release.Namespace }}}
{{- end }}

{{/* A PodDisruptionBudget that lets a node be drained, one pod at a time; takes [root, component, name]. */}}
{{- define "vibed.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ index . 2 }}
  labels: {{- include "vibed.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "vibed.selector" . | nindent 6 }}
{{- end }}
