BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE api_tokens (
	token_id VARCHAR(16) NOT NULL, 
	user_name VARCHAR(256) NOT NULL, 
	label VARCHAR(256) NOT NULL, 
	secret_hash TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	revoked_at BIGINT, 
	PRIMARY KEY (token_id), 
	FOREIGN KEY(user_name) REFERENCES users (name)
);
CREATE TABLE approvals (
	model VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	actor VARCHAR(256) NOT NULL, 
	reason TEXT NOT NULL, 
	approved_at BIGINT NOT NULL, roles TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (model, version, stage, actor)
);
CREATE TABLE assessments (
	assessment_id VARCHAR(64) NOT NULL, 
	trace_id VARCHAR(64) NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	value TEXT NOT NULL, 
	number FLOAT, 
	valid INTEGER NOT NULL, 
	document TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (assessment_id), 
	FOREIGN KEY(trace_id) REFERENCES traces (trace_id)
);
CREATE TABLE audit_entries (
	sequence INTEGER NOT NULL, 
	recorded_at BIGINT NOT NULL, 
	actor VARCHAR(256) NOT NULL, 
	action VARCHAR(64) NOT NULL, 
	subject VARCHAR(512) NOT NULL, 
	detail TEXT NOT NULL, 
	seals TEXT NOT NULL, 
	previous_hash VARCHAR(64) NOT NULL, 
	entry_hash VARCHAR(64) NOT NULL, 
	PRIMARY KEY (sequence)
);
INSERT INTO "audit_entries" VALUES(1,1767225600000,'someone','route.set','deployment:shop','{"after":[{"name":"champion","percent":100,"version":"m@1"}],"before":[],"reason":"m@1 entered Production","revision":1}','{"route_tables shop/1":"7bd067079d892b63fca553274cc62385c54c3bd435f948ffbbdfd913731ada90"}','0000000000000000000000000000000000000000000000000000000000000000','b117b94f3b7c6c1bddb3a15b7d20abdb0349302b27b75c1d6a205ce3f68f138b');
INSERT INTO "audit_entries" VALUES(2,1767225600000,'someone','rollout.start','deployment:shop','{"challenger":2,"champion":1,"steps":[5,100]}','{"rollouts b4e47007a2cd3f428ff9c15df2bc1c48":"16b63ea7e7a4e9a065cd905ca90a8370640339bcd905f7ad6c59c3daf89d58a3"}','b117b94f3b7c6c1bddb3a15b7d20abdb0349302b27b75c1d6a205ce3f68f138b','3d5ce5edc8be711e369c5aa51244f0cc916a07695b22c96dfaf1b27d62bb18df');
INSERT INTO "audit_entries" VALUES(3,1767225600000,'someone','route.set','deployment:shop','{"after":[{"name":"champion","percent":95,"version":"m@1"},{"name":"canary","percent":5,"version":"m@2"}],"before":[{"name":"champion","percent":100,"version":"m@1"}],"reason":"canary","revision":2}','{"route_tables shop/2":"7d2a9e544fcbb5c8f69b7dca9fb7abf5e528627d876602ebd9b3b2be4c5cd9f7"}','3d5ce5edc8be711e369c5aa51244f0cc916a07695b22c96dfaf1b27d62bb18df','0a454da772bccbbd70b54a15e75caaa9ac575a1df51c5cc38420df8940eb9506');
CREATE TABLE dataset_versions (
	dataset_version_id VARCHAR(64) NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	rows INTEGER NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	since BIGINT NOT NULL, 
	until BIGINT NOT NULL, 
	columns TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (dataset_version_id)
);
CREATE TABLE experiments (
	experiment_id VARCHAR(32) NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	artifact_location TEXT NOT NULL, 
	lifecycle_stage VARCHAR(16) NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	tags TEXT DEFAULT '{}' NOT NULL, 
	PRIMARY KEY (experiment_id), 
	UNIQUE (name)
);
CREATE TABLE latest_metrics (
	run_id VARCHAR(32) NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	step BIGINT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	value FLOAT NOT NULL, 
	is_nan INTEGER NOT NULL, 
	PRIMARY KEY (run_id, "key"), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
)
 WITHOUT ROWID

;
CREATE TABLE logged_model_metrics (
	model_id VARCHAR(64) NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	timestamp BIGINT NOT NULL, 
	step BIGINT NOT NULL, 
	run_id VARCHAR(32) NOT NULL, 
	value FLOAT NOT NULL, 
	is_nan INTEGER NOT NULL, 
	dataset_name VARCHAR(500) DEFAULT '' NOT NULL, 
	dataset_digest VARCHAR(64) DEFAULT '' NOT NULL, 
	PRIMARY KEY (model_id, "key", timestamp, step, run_id)
);
CREATE TABLE logged_models (
	model_id VARCHAR(64) NOT NULL, 
	experiment_id VARCHAR(32) NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	source_run_id VARCHAR(32), 
	artifact_uri TEXT NOT NULL, 
	status VARCHAR(32) NOT NULL, 
	model_type VARCHAR(256) DEFAULT '' NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	params TEXT DEFAULT '{}' NOT NULL, 
	tags TEXT DEFAULT '{}' NOT NULL, 
	PRIMARY KEY (model_id), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id)
);
CREATE TABLE model_aliases (
	model VARCHAR(256) NOT NULL, 
	alias VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (model, alias), 
	FOREIGN KEY(model) REFERENCES registered_models (name) ON UPDATE CASCADE
);
CREATE TABLE model_versions (
	model VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	semantic_version VARCHAR(32) NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	status VARCHAR(32) NOT NULL, 
	source TEXT NOT NULL, 
	run_id VARCHAR(32), 
	logged_model_id VARCHAR(64), 
	dataset_version_id VARCHAR(64), 
	digest VARCHAR(64) NOT NULL, 
	signature TEXT NOT NULL, 
	algorithm VARCHAR(256) NOT NULL, 
	metrics TEXT NOT NULL, 
	tags TEXT NOT NULL, 
	description TEXT NOT NULL, 
	created_by VARCHAR(256) NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	idempotency_key VARCHAR(256), run_link TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (model, version), 
	FOREIGN KEY(model) REFERENCES registered_models (name) ON UPDATE CASCADE, 
	UNIQUE (idempotency_key)
);
CREATE TABLE monitor_windows (
	deployment VARCHAR(256) NOT NULL, 
	model_version INTEGER NOT NULL, 
	detector VARCHAR(64) NOT NULL, 
	window_start BIGINT NOT NULL, 
	rows INTEGER NOT NULL, 
	value FLOAT NOT NULL, 
	statistic FLOAT NOT NULL, 
	threshold FLOAT NOT NULL, 
	evidence TEXT NOT NULL, 
	PRIMARY KEY (deployment, model_version, detector, window_start)
);
CREATE TABLE pipeline_steps (
	pipeline_id VARCHAR(256) NOT NULL, 
	step VARCHAR(256) NOT NULL, 
	result TEXT NOT NULL, 
	seconds FLOAT NOT NULL, 
	finished_at BIGINT NOT NULL, 
	PRIMARY KEY (pipeline_id, step)
);
CREATE TABLE registered_models (
	name VARCHAR(256) NOT NULL, 
	description TEXT DEFAULT '' NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	tags TEXT DEFAULT '{}' NOT NULL, last_version INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE role_grants (
	user_name VARCHAR(256) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	pattern VARCHAR(256) NOT NULL, 
	granted_at BIGINT NOT NULL, 
	PRIMARY KEY (user_name, role, pattern), 
	FOREIGN KEY(user_name) REFERENCES users (name)
);
CREATE TABLE rollout_decisions (
	rollout_id VARCHAR(32) NOT NULL, 
	number INTEGER NOT NULL, 
	percent FLOAT NOT NULL, 
	decision VARCHAR(16) NOT NULL, 
	evidence TEXT NOT NULL, 
	decided_at BIGINT NOT NULL, 
	PRIMARY KEY (rollout_id, number), 
	FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);
CREATE TABLE rollouts (
	rollout_id VARCHAR(32) NOT NULL, 
	deployment VARCHAR(256) NOT NULL, 
	model VARCHAR(256) NOT NULL, 
	champion INTEGER NOT NULL, 
	challenger INTEGER NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	step INTEGER NOT NULL, 
	steps TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	step_started_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	PRIMARY KEY (rollout_id)
);
INSERT INTO "rollouts" VALUES('b4e47007a2cd3f428ff9c15df2bc1c48','shop','m',1,2,'running',0,'[5, 100]',1767225600000,1767225600000,NULL);
CREATE TABLE route_tables (
	deployment VARCHAR(256) NOT NULL, 
	revision INTEGER NOT NULL, 
	variants TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	actor VARCHAR(256) NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (deployment, revision)
);
INSERT INTO "route_tables" VALUES('shop',1,'[{"digest":"1111111111111111111111111111111111111111111111111111111111111111","model":"m","name":"champion","percent":100,"source":"1/model","version":1}]','m@1 entered Production','someone',1767225600000);
INSERT INTO "route_tables" VALUES('shop',2,'[{"digest":"1111111111111111111111111111111111111111111111111111111111111111","model":"m","name":"champion","percent":95,"source":"1/model","version":1},{"digest":"2222222222222222222222222222222222222222222222222222222222222222","model":"m","name":"canary","percent":5,"source":"2/model","version":2}]','canary','someone',1767225600000);
CREATE TABLE run_inputs (
	run_id VARCHAR(32) NOT NULL, 
	dataset_digest VARCHAR(64) NOT NULL, 
	dataset_name VARCHAR(256) NOT NULL, 
	context VARCHAR(256) DEFAULT '' NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (run_id, dataset_digest, dataset_name), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
CREATE TABLE run_metrics (
	run_id VARCHAR(32) NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	step BIGINT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	value FLOAT NOT NULL, 
	is_nan INTEGER NOT NULL, 
	PRIMARY KEY (run_id, "key", step, timestamp, value, is_nan), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
)
 WITHOUT ROWID

;
CREATE TABLE run_model_inputs (
	run_id VARCHAR(32) NOT NULL, 
	model_id VARCHAR(64) NOT NULL, 
	PRIMARY KEY (run_id, model_id), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
CREATE TABLE run_outputs (
	run_id VARCHAR(32) NOT NULL, 
	model_id VARCHAR(64) NOT NULL, 
	step BIGINT NOT NULL, 
	PRIMARY KEY (run_id, model_id), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
CREATE TABLE run_params (
	run_id VARCHAR(32) NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (run_id, "key"), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
CREATE TABLE run_tags (
	run_id VARCHAR(32) NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (run_id, "key"), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
CREATE TABLE runs (
	run_id VARCHAR(32) NOT NULL, 
	experiment_id VARCHAR(32) NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	user_id VARCHAR(256) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	lifecycle_stage VARCHAR(16) NOT NULL, 
	started_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	artifact_uri TEXT NOT NULL, 
	registered_as VARCHAR(512), 
	frozen INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (run_id), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id)
);
CREATE TABLE spans (
	trace_id VARCHAR(64) NOT NULL, 
	span_id VARCHAR(16) NOT NULL, 
	parent_id VARCHAR(16), 
	name TEXT NOT NULL, 
	type TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	started_ns BIGINT NOT NULL, 
	ended_ns BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (trace_id, span_id), 
	FOREIGN KEY(trace_id) REFERENCES traces (trace_id)
);
CREATE TABLE trace_links (
	trace_id VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	target VARCHAR(512) NOT NULL, 
	PRIMARY KEY (trace_id, kind, target)
);
CREATE TABLE trace_metadata (
	trace_id VARCHAR(64) NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (trace_id, "key"), 
	FOREIGN KEY(trace_id) REFERENCES traces (trace_id)
);
CREATE TABLE trace_tags (
	trace_id VARCHAR(64) NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (trace_id, "key"), 
	FOREIGN KEY(trace_id) REFERENCES traces (trace_id)
);
CREATE TABLE traces (
	trace_id VARCHAR(64) NOT NULL, 
	experiment_id VARCHAR(32) NOT NULL, 
	started_at BIGINT NOT NULL, 
	duration_ms BIGINT, 
	state VARCHAR(32) NOT NULL, 
	client_request_id VARCHAR(256), 
	request_preview TEXT, 
	response_preview TEXT, 
	PRIMARY KEY (trace_id), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id)
);
CREATE TABLE transitions (
	id INTEGER NOT NULL, 
	model VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	from_stage VARCHAR(16) NOT NULL, 
	to_stage VARCHAR(16) NOT NULL, 
	actor VARCHAR(256) NOT NULL, 
	reason TEXT NOT NULL, 
	moved_at BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE users (
	name VARCHAR(256) NOT NULL, 
	origin VARCHAR(512) NOT NULL, 
	password_hash TEXT, 
	disabled INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE verdicts (
	verdict_id VARCHAR(32) NOT NULL, 
	deployment VARCHAR(256) NOT NULL, 
	model_version INTEGER NOT NULL, 
	detector VARCHAR(64) NOT NULL, 
	statistic FLOAT NOT NULL, 
	threshold FLOAT NOT NULL, 
	evidence TEXT NOT NULL, 
	window_start BIGINT NOT NULL, 
	raised_at BIGINT NOT NULL, 
	outcome VARCHAR(64) NOT NULL, 
	PRIMARY KEY (verdict_id)
);
CREATE TABLE webhook_deliveries (
	sequence INTEGER NOT NULL, 
	delivery_id VARCHAR(36) NOT NULL, 
	webhook_id VARCHAR(36) NOT NULL, 
	event VARCHAR(64) NOT NULL, 
	body TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	attempts INTEGER NOT NULL, 
	due_at BIGINT NOT NULL, 
	claimed_by VARCHAR(32) DEFAULT '' NOT NULL, 
	claimed_until BIGINT DEFAULT '0' NOT NULL, 
	created_at BIGINT NOT NULL, 
	settled_at BIGINT, 
	reason TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (sequence), 
	FOREIGN KEY(webhook_id) REFERENCES webhooks (webhook_id), 
	UNIQUE (delivery_id)
);
CREATE TABLE webhooks (
	webhook_id VARCHAR(36) NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	url TEXT NOT NULL, 
	description TEXT DEFAULT '' NOT NULL, 
	events TEXT NOT NULL, 
	secret TEXT DEFAULT '' NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (webhook_id)
);
CREATE INDEX rollouts_by_deployment ON rollouts (deployment, status);
CREATE INDEX transitions_by_model ON transitions (model, version);
CREATE INDEX verdicts_by_deployment ON verdicts (deployment, raised_at);
CREATE INDEX ix_logged_models_experiment_id ON logged_models (experiment_id);
CREATE INDEX ix_logged_models_source_run_id ON logged_models (source_run_id);
CREATE INDEX ix_model_versions_run_id ON model_versions (run_id);
CREATE INDEX ix_runs_experiment_id ON runs (experiment_id);
CREATE INDEX latest_metrics_by_value ON latest_metrics ("key", value);
CREATE INDEX ix_api_tokens_user_name ON api_tokens (user_name);
CREATE INDEX model_versions_by_source ON model_versions (source);
CREATE INDEX traces_by_time ON traces (experiment_id, started_at);
CREATE INDEX trace_links_by_target ON trace_links (kind, target);
CREATE INDEX ix_assessments_trace_id ON assessments (trace_id);
CREATE INDEX webhook_deliveries_by_status ON webhook_deliveries (status, webhook_id, sequence);
COMMIT;
