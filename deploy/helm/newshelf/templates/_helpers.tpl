{{- define "newshelf.name" -}}
{{- if contains "newshelf" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-newshelf" (.Release.Name | trunc 31 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* Labels that select pods; a component's are added by its template. */}}
{{- define "newshelf.selector" -}}
app.kubernetes.io/name: newshelf
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "newshelf.labels" -}}
{{ include "newshelf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Not empty if the installation may have more than one pod. */}}
{{- define "newshelf.several" -}}
{{- if or (gt (int .Values.replicas) 1) .Values.autoscaling.enabled -}}true{{- end -}}
{{- end -}}

{{/* Not empty if a pod's own files are on a volume of its own. */}}
{{- define "newshelf.split" -}}
{{- if or (include "newshelf.several" .) .Values.artifacts.fetch.enabled -}}true{{- end -}}
{{- end -}}

{{/* Workspace of a pod: that of the training, unless it is split. */}}
{{- define "newshelf.state" -}}
{{- if include "newshelf.split" . -}}/state{{- else -}}/data/workspace{{- end -}}
{{- end -}}

{{- define "newshelf.storeUrl" -}}
{{- default (printf "sqlite:///%s/gateway/events.db" (include "newshelf.state" .)) .Values.database.url -}}
{{- end -}}

{{- define "newshelf.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "newshelf.trainingImage" -}}
{{- printf "%s:%s" .Values.training.image.repository (default .Chart.AppVersion .Values.training.image.tag) -}}
{{- end -}}

{{- define "newshelf.keysSecret" -}}
{{- if .Values.keys.files -}}{{ include "newshelf.name" . }}-keys{{- else -}}{{ .Values.keys.existingSecret }}{{- end -}}
{{- end -}}

{{- define "newshelf.databaseSecret" -}}
{{- if .Values.database.password -}}{{ include "newshelf.name" . }}-database{{- else -}}{{ .Values.database.passwordSecret }}{{- end -}}
{{- end -}}

{{/* What every pod's specification begins with. */}}
{{- define "newshelf.pod" -}}
serviceAccountName: {{ include "newshelf.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.securityContext.runAsUser }}
  runAsGroup: {{ .Values.securityContext.runAsGroup }}
  fsGroup: {{ .Values.securityContext.fsGroup }}
  # Private files stay private: a later mount changes no modes.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "newshelf.containerSecurity" -}}
securityContext:
  runAsNonRoot: true
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Environment and mounts of a container of Newshelf. */}}
{{- define "newshelf.environment" -}}
env:
  - {name: PYTHONPATH, value: {{ .Values.image.root | quote }}}
  - {name: HOME, value: /tmp}
  {{- if include "newshelf.databaseSecret" . }}
  - name: PGPASSWORD
    valueFrom:
      secretKeyRef:
        name: {{ include "newshelf.databaseSecret" . }}
        key: {{ .Values.database.passwordKey }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Probe of a program that touches a file while it works. No startup probe: it would hold up the
gateway, which answers without this program. */}}
{{- define "newshelf.heartbeat" -}}
livenessProbe:
  exec: {command: [sh, -c, 'test -n "$(find {{ .file }} -mmin -5)"']}
  initialDelaySeconds: {{ .startSeconds }}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 2
{{- end -}}

{{- define "newshelf.mounts" -}}
volumeMounts:
  - {name: files, mountPath: /etc/newshelf, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  {{- if include "newshelf.split" . }}
  - {name: data, mountPath: /data, readOnly: true}
  - {name: state, mountPath: /state}
  {{- else }}
  - {name: data, mountPath: /data}
  {{- end }}
{{- end -}}

{{- define "newshelf.volumes" -}}
- name: files
  configMap: {name: {{ include "newshelf.name" . }}}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.temporarySize }}}
- name: data
  {{- if .Values.artifacts.fetch.enabled }}
  emptyDir: {sizeLimit: {{ .Values.artifacts.fetch.size }}}
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-data" (include "newshelf.name" .)) .Values.artifacts.existingClaim }}
  {{- end }}
{{- end -}}

{{- define "newshelf.sameNode" -}}
{{- if .Values.training.sameNode -}}
# A ReadWriteOnce volume is mounted on one node only: that of the server.
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{ include "newshelf.selector" . | nindent 12 }}
            app.kubernetes.io/component: server
{{- end -}}
{{- end -}}

{{/* Combinations of values that the schema cannot refuse. */}}
{{- define "newshelf.check" -}}
{{- $several := include "newshelf.several" . -}}
{{- $split := include "newshelf.split" . -}}
{{- $settings := .Values.settings -}}
{{- if and $several (not .Values.database.url) -}}
{{- fail "database.url is missing: several replicas share one PostgreSQL, such as postgresql+psycopg://newshelf@db/newshelf" -}}
{{- end -}}
{{- if and $split (not .Values.model.version) -}}
{{- fail "model.version is missing: several replicas, or artifacts.fetch, must name the version that all of them serve" -}}
{{- end -}}
{{- if and $several (not (include "newshelf.keysSecret" .)) -}}
{{- fail "keys are missing: several replicas need the same keys.json and cursor.key; set keys.existingSecret or keys.files" -}}
{{- end -}}
{{- if and .Values.keys.files .Values.keys.existingSecret -}}
{{- fail "set keys.files or keys.existingSecret, not both" -}}
{{- end -}}
{{- if and $several .Values.keys.files -}}
{{- range (ternary (list "keys.json" "cursor.key" "pseudonym.key") (list "keys.json" "cursor.key") (eq true (dig "store" "pseudonyms" false $settings))) -}}
{{- if not (hasKey $.Values.keys.files .) -}}
{{- fail (printf "keys.files lacks %s, which all replicas must share" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.database.password .Values.database.passwordSecret -}}
{{- fail "set database.password or database.passwordSecret, not both" -}}
{{- end -}}
{{- if regexMatch "//[^/@]*:[^/@]*@" .Values.database.url -}}
{{- fail "database.url contains a password, which a ConfigMap would show: set database.passwordSecret" -}}
{{- end -}}
{{- if and $several (not .Values.artifacts.fetch.enabled) (not .Values.artifacts.existingClaim) (not (or (has "ReadWriteMany" .Values.artifacts.accessModes) (has "ReadOnlyMany" .Values.artifacts.accessModes))) -}}
{{- fail "artifacts.accessModes must contain ReadWriteMany or ReadOnlyMany for several replicas; or use artifacts.fetch" -}}
{{- end -}}
{{- if and .Values.artifacts.fetch.enabled (not .Values.artifacts.fetch.image) -}}
{{- fail "artifacts.fetch.image is missing: the image of the container that fetches the archives" -}}
{{- end -}}
{{- if and .Values.alerts.enabled (not (and .Values.podMonitor.enabled .Values.podMonitor.keySecret)) -}}
{{- fail "alerts.enabled needs podMonitor.enabled and podMonitor.keySecret: the alerts are of the gateway's metrics, too" -}}
{{- end -}}
{{- if and .Values.retrain.enabled (not .Values.training.enabled) -}}
{{- fail "retrain.enabled needs training.enabled" -}}
{{- end -}}
{{- if and .Values.retrain.enabled $split -}}
{{- fail "retrain.enabled needs one replica and a shared volume: a retraining opens a rollout, and a rollout covers one model server" -}}
{{- end -}}
{{- if and .Values.retrain.enabled (not .Values.database.url) -}}
{{- fail "database.url is missing: a retraining reads the event store from another pod, so it must be PostgreSQL" -}}
{{- end -}}
{{- if and .Values.training.enabled .Values.artifacts.fetch.enabled -}}
{{- fail "training.enabled needs a volume: with artifacts.fetch, train elsewhere and upload the archives" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is larger than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (eq .Values.autoscaling.kind "keda") (not .Values.autoscaling.prometheusUrl) -}}
{{- fail "autoscaling.prometheusUrl is missing: KEDA asks Prometheus for the queue time" -}}
{{- end -}}
{{- range $place, $instead := dict "gateway.enabled" "the gateway is the pod's main container" "gateway.placements" "use the value placements" "gateway.port" "the port is 8000; service.port is the service's" "store.url" "use database.url" "store.spool" "the chart chooses the file" "store.pseudonym_key" "use the file pseudonym.key of keys" "retrain.plan" "use the value retrain.plan" -}}
{{- $section := index (splitList "." $place) 0 -}}
{{- $key := index (splitList "." $place) 1 -}}
{{- if hasKey (default dict (get $settings $section)) $key -}}
{{- fail (printf "settings.%s cannot be set here: %s" $place $instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}
