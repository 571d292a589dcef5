BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE approvals (
	model VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	actor VARCHAR(256) NOT NULL, 
	reason TEXT NOT NULL, 
	approved_at BIGINT NOT NULL, 
	PRIMARY KEY (model, version, stage, actor)
);
INSERT INTO "approvals" VALUES('m',1,'Production','other','read',1767225600000);
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
INSERT INTO "audit_entries" VALUES(1,1767225600000,'someone','model.create','model:m','{}','{"registered_models m":"fbf191b17faab1b6d0d2bfa73a44c0da50fe900368967dc84eae3cb97c21221b"}','0000000000000000000000000000000000000000000000000000000000000000','5c93f6e7e7c7d027479d9c864d6f6a3c482b81d2379c0079c94af1645f81a584');
INSERT INTO "audit_entries" VALUES(2,1767225600000,'someone','version.register','version:m@1','{"dataset_version_id":null,"digest":"","metrics":{"auc":0.9},"run_id":null,"semantic_version":"1.0.0","tags":{}}','{"model_versions m/1":"c173462228a7d48df3785772a9572a49805108cfb1df2bfa105faa1477419f6e"}','5c93f6e7e7c7d027479d9c864d6f6a3c482b81d2379c0079c94af1645f81a584','51bb9e6d3beb9e9018b3e6effff2bb9d251f012c183a83f45a8602535dd15620');
INSERT INTO "audit_entries" VALUES(3,1767225600000,'someone','version.register','version:m@2','{"dataset_version_id":null,"digest":"","metrics":{"auc":0.9},"run_id":null,"semantic_version":"1.0.1","tags":{}}','{"model_versions m/2":"ee955a0a178f2a51daa5d56562130a0810b87ef2b65002151ffd1d913455a438"}','51bb9e6d3beb9e9018b3e6effff2bb9d251f012c183a83f45a8602535dd15620','651475b3108d6388ce49eaf27738f13dc43993b7c2427e9b8186786c7d10892e');
INSERT INTO "audit_entries" VALUES(4,1767225600000,'other','version.approve','version:m@1','{"reason":"read","stage":"Production"}','{"approvals m/1/Production/other":"7f34a3bc9fc71dd0f92327de8dd042a7aea4b095d8cb017f8f24dbfc83270694"}','651475b3108d6388ce49eaf27738f13dc43993b7c2427e9b8186786c7d10892e','950e9e6965c2ece5523a2312da9c6563ad2192276b7624c9b9240fa06ada0cab');
INSERT INTO "audit_entries" VALUES(5,1767225600000,'someone','version.transition','version:m@1','{"from_stage":"None","reason":"","to_stage":"Production"}','{"model_versions m/1":"2306f9f2ada364c71aa0876cc4f9bf8e9095a397cf9143c59a53c3b171582f0a","transitions 1":"628be13b20af65f3f43388a37d4e7dc7ece556d40f834e92cd2ac015c24647f6"}','950e9e6965c2ece5523a2312da9c6563ad2192276b7624c9b9240fa06ada0cab','ed8b7f41f789747c2e7ae9491e48dfc08ad04f240335b992138880553e47bc99');
INSERT INTO "audit_entries" VALUES(6,1767225600000,'someone','alias.set','model:m','{"after":1,"alias":"champion","before":null}','{"model_aliases m/champion":"deedd1d8a95c49f56c42b77d56ba1e253d5c747163f7de57421d229e347960d9"}','ed8b7f41f789747c2e7ae9491e48dfc08ad04f240335b992138880553e47bc99','291308711e1cba799d48974ee834b7c36110e491b6e917e2c52b7c4d0abbc70e');
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
INSERT INTO "model_aliases" VALUES('m','champion',1);
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
	idempotency_key VARCHAR(256), 
	PRIMARY KEY (model, version), 
	FOREIGN KEY(model) REFERENCES registered_models (name) ON UPDATE CASCADE, 
	UNIQUE (idempotency_key)
);
INSERT INTO "model_versions" VALUES('m',1,'1.0.0','Production','READY','mlflow-artifacts:/m/0',NULL,NULL,NULL,'','{"inputs":[],"output":""}','','{"auc":0.9}','{}','','someone',1767225600000,1767225600000,NULL);
INSERT INTO "model_versions" VALUES('m',2,'1.0.1','None','READY','mlflow-artifacts:/m/1',NULL,NULL,NULL,'','{"inputs":[],"output":""}','','{"auc":0.9}','{}','','someone',1767225600000,1767225600000,NULL);
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
	tags TEXT DEFAULT '{}' NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "registered_models" VALUES('m','',1767225600000,1767225600000,'{}');
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
CREATE TABLE route_tables (
	deployment VARCHAR(256) NOT NULL, 
	revision INTEGER NOT NULL, 
	variants TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	actor VARCHAR(256) NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (deployment, revision)
);
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
INSERT INTO "transitions" VALUES(1,'m',1,'None','Production','someone','',1767225600000);
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
CREATE INDEX rollouts_by_deployment ON rollouts (deployment, status);
CREATE INDEX transitions_by_model ON transitions (model, version);
CREATE INDEX verdicts_by_deployment ON verdicts (deployment, raised_at);
CREATE INDEX ix_logged_models_experiment_id ON logged_models (experiment_id);
CREATE INDEX ix_logged_models_source_run_id ON logged_models (source_run_id);
CREATE INDEX ix_model_versions_run_id ON model_versions (run_id);
CREATE INDEX ix_runs_experiment_id ON runs (experiment_id);
CREATE INDEX latest_metrics_by_value ON latest_metrics ("key", value);
COMMIT;
