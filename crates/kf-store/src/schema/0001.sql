-- Identifiers are 16 octets and time-ordered, serial numbers 20 octets and time-ordered: inserts go to the right edge
-- of their trees. Times are milliseconds since 1970. Enumerations are the codes of column.rs; 0 is never used.

CREATE TABLE facility (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE product_line (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    authority BLOB,
    policy TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE device (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    facility BLOB NOT NULL,
    product_line BLOB NOT NULL,
    state INTEGER NOT NULL,
    batch TEXT,
    attributes TEXT,
    protection INTEGER NOT NULL,
    created INTEGER NOT NULL,
    last_seen INTEGER
) STRICT, WITHOUT ROWID;
-- Devices that are unsafe for ever, and by what: rows are added and never changed.
CREATE TABLE device_unsafe (
    device BLOB NOT NULL,
    mark TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (device, mark)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_by_facility ON device (facility, state, id);
CREATE INDEX device_by_facility_name ON device (facility, name);
CREATE INDEX device_by_product_line ON device (product_line, id);
CREATE INDEX device_by_batch ON device (batch, id) WHERE batch IS NOT NULL;

CREATE TABLE device_count (
    facility BLOB NOT NULL,
    state INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (facility, state)
) STRICT, WITHOUT ROWID;

-- The key epochs of a facility. One row per facility starts with epoch 1.
CREATE TABLE facility_epoch (
    facility BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    state INTEGER NOT NULL,
    created INTEGER NOT NULL,
    retired INTEGER,
    PRIMARY KEY (facility, epoch)
) STRICT, WITHOUT ROWID;

-- The symmetric key of a device: its salt, wrapped by the signer, and the device epoch that it is to have. Made when the
-- key is first delivered, so that registering a device costs nothing.
CREATE TABLE device_key (
    device BLOB NOT NULL PRIMARY KEY,
    salt BLOB NOT NULL,
    device_epoch INTEGER NOT NULL,
    -- Later than every wipe of a salt of this device, whatever the clock says: a restart must not take a new owner's salt
    -- for the one that was wiped.
    made INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- When a salt of a device was last wiped.
CREATE TABLE device_key_wiped (
    device BLOB NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Under which version of the wrapping key each salt lies.
CREATE INDEX device_key_by_wrapping ON device_key (substr(salt, 2, 4));

-- Versions of the wrapping key. The first is derived from the root; the material of the others is outside the registry.
CREATE TABLE wrapping_version (
    version INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    created INTEGER NOT NULL,
    deactivated INTEGER,
    destroyed INTEGER
) STRICT;
INSERT INTO wrapping_version (version, state, created) VALUES (1, 2, 0);

-- The epochs of that key that were ever offered to the device. The facility follows from the two epochs.
CREATE TABLE device_key_epoch (
    device BLOB NOT NULL,
    device_epoch INTEGER NOT NULL,
    facility_epoch INTEGER NOT NULL,
    facility BLOB NOT NULL,
    state INTEGER NOT NULL,
    offered INTEGER NOT NULL,
    acknowledged INTEGER,
    PRIMARY KEY (device, device_epoch, facility_epoch)
) STRICT, WITHOUT ROWID;
-- Who may still hold a key of an epoch; superseded ones (3) do not count.
CREATE INDEX device_key_by_facility_epoch ON device_key_epoch (facility, facility_epoch, device) WHERE state <> 3;

-- Destructions of keys by their proposals, with their receipts. What was destroyed has left the other tables.
CREATE TABLE destruction (
    id BLOB NOT NULL PRIMARY KEY,
    proposal BLOB NOT NULL UNIQUE,
    facility BLOB,
    result INTEGER NOT NULL,
    receipt TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX destruction_barred ON destruction (id) WHERE result = 2;

-- Devices that leave who has them, by the proposal that was approved. `record` is absent until everything is done.
CREATE TABLE ownership (
    id INTEGER PRIMARY KEY,
    proposal BLOB NOT NULL,
    device BLOB NOT NULL,
    facility BLOB NOT NULL,
    record TEXT,
    UNIQUE (proposal, device)
) STRICT;
CREATE INDEX ownership_by_device ON ownership (device, id);
CREATE INDEX ownership_open ON ownership (proposal) WHERE record IS NULL;

-- Backups, and which of them can still be opened.
CREATE TABLE backup (
    id BLOB NOT NULL PRIMARY KEY,
    key_version INTEGER NOT NULL,
    state INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE backup_key (
    version INTEGER PRIMARY KEY,
    recipient TEXT NOT NULL UNIQUE,
    record TEXT NOT NULL
) STRICT;
CREATE TABLE escrow (
    ceremony TEXT NOT NULL PRIMARY KEY,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX backup_openable ON backup (id) WHERE state = 1;

-- What was seen under each key of sealed payloads, so that a restart does not make a replay look new, and how often the
-- key was used since the log last said so. `since` is the first use that the log does not count yet.
CREATE TABLE replay_window (
    key_id BLOB NOT NULL PRIMARY KEY,
    seen BLOB NOT NULL,
    uses INTEGER NOT NULL,
    since INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX replay_window_unlogged ON replay_window (since) WHERE since IS NOT NULL;

-- Batches of factory stations, with the quota as it was signed. The batch CA has no row in `authority`: its key is at the
-- station, and the server signs nothing with it.
CREATE TABLE batch (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    facility BLOB NOT NULL,
    product_line BLOB NOT NULL,
    station BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    recipe BLOB NOT NULL,
    devices INTEGER NOT NULL,
    first_name TEXT NOT NULL,
    last_name TEXT NOT NULL,
    allows_unsafe INTEGER NOT NULL,
    allows_early INTEGER NOT NULL,
    authority BLOB NOT NULL UNIQUE,
    authority_serial BLOB NOT NULL,
    key_identifier BLOB NOT NULL UNIQUE,
    issued INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    state INTEGER NOT NULL,
    ended INTEGER,
    request BLOB NOT NULL UNIQUE,
    quota BLOB NOT NULL,
    UNIQUE (station, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_by_facility ON batch (facility, id);

-- Records by their place in the chain. Two with one sequence are two histories: both are kept.
CREATE TABLE batch_record (
    batch BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    previous BLOB NOT NULL,
    at INTEGER NOT NULL,
    device BLOB NOT NULL,
    outcome INTEGER NOT NULL,
    body INTEGER NOT NULL,
    PRIMARY KEY (batch, sequence, hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_record_by_device ON batch_record (batch, device, sequence, hash, outcome);

-- The cold half: the octets that the station signed.
CREATE TABLE batch_record_body (
    body INTEGER PRIMARY KEY,
    document BLOB NOT NULL
) STRICT;

CREATE TABLE batch_manifest (
    batch BLOB NOT NULL,
    last INTEGER NOT NULL,
    hash BLOB NOT NULL,
    head BLOB NOT NULL,
    passed INTEGER NOT NULL,
    scrapped INTEGER NOT NULL,
    rework INTEGER NOT NULL,
    at INTEGER NOT NULL,
    is_final INTEGER NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (batch, last, hash)
) STRICT, WITHOUT ROWID;

-- What the station signed when it had destroyed the keys of the batch.
CREATE TABLE batch_keys_destroyed (
    batch BLOB NOT NULL,
    hash BLOB NOT NULL,
    at INTEGER NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (batch, hash)
) STRICT, WITHOUT ROWID;

-- What became of each device that has a record: a function of its records, written again with each.
CREATE TABLE batch_made (
    batch BLOB NOT NULL,
    device BLOB NOT NULL,
    state INTEGER NOT NULL,
    PRIMARY KEY (batch, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_made_by_state ON batch_made (batch, state);

-- What must be of one device only: 1 hardware address, 2 chip serial number, 3 public key, 4 serial number of the IDevID.
CREATE TABLE batch_mark (
    kind INTEGER NOT NULL,
    value BLOB NOT NULL,
    device BLOB NOT NULL,
    batch BLOB NOT NULL,
    PRIMARY KEY (kind, value, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_mark_by_device ON batch_mark (device, kind);

-- No device, or no other, is the empty blob.
CREATE TABLE batch_conflict (
    batch BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    device BLOB NOT NULL,
    other BLOB NOT NULL,
    found INTEGER NOT NULL,
    PRIMARY KEY (batch, sequence, kind, device, other)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_conflict_by_device ON batch_conflict (batch, device);

-- Manufacturers whose IDevIDs bootstrap devices made elsewhere. `anchor` is their CA certificate, PEM.
CREATE TABLE vendor (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    anchor TEXT NOT NULL,
    subject TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    created INTEGER NOT NULL,
    withdrawn INTEGER
) STRICT, WITHOUT ROWID;

-- Which device may use which IDevID. Without a certificate it is a line of an allow list: the first certificate of the
-- vendor's with this identifier that enrols becomes the only one. `certificate` is the SHA-256 of its DER.
CREATE TABLE vendor_device (
    device BLOB NOT NULL PRIMARY KEY,
    vendor BLOB NOT NULL,
    identifier TEXT NOT NULL,
    certificate BLOB UNIQUE,
    first_used INTEGER,
    UNIQUE (vendor, identifier)
) STRICT, WITHOUT ROWID;

-- Orders as they were signed.
CREATE TABLE device_order (
    id BLOB NOT NULL PRIMARY KEY,
    device BLOB NOT NULL,
    act INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    state INTEGER NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    -- When a broker took it, and when the device said that it has it.
    sent INTEGER,
    acknowledged INTEGER,
    delivered INTEGER,
    ended INTEGER,
    why TEXT NOT NULL,
    message BLOB NOT NULL,
    UNIQUE (device, counter)
) STRICT, WITHOUT ROWID;

-- Devices whose program says with its poll that it knows the order to reset, since when.
CREATE TABLE device_knows_reset (
    device BLOB NOT NULL PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Campaigns over devices. `chosen_after` is the page of devices that comes next while they are chosen.
CREATE TABLE campaign (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reason TEXT NOT NULL,
    filter TEXT NOT NULL,
    plan TEXT NOT NULL,
    why TEXT NOT NULL,
    facility BLOB,
    created INTEGER NOT NULL,
    started INTEGER,
    ended INTEGER,
    wave INTEGER NOT NULL,
    begins INTEGER,
    chosen_after TEXT,
    chosen INTEGER NOT NULL,
    forgiven INTEGER NOT NULL,
    gate_open INTEGER NOT NULL,
    last_release INTEGER,
    settled INTEGER NOT NULL,
    algorithm INTEGER,
    version INTEGER NOT NULL,
    -- Not null while devices are being told to renew, or of a new root: `told` below is behind.
    telling INTEGER,
    -- Nobody before this slot waits for a turn.
    turn INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX campaign_by_state ON campaign (state, id);

-- The part of each device. `slot` is its place in the order of release; `epoch` or `device_order` is what it was asked for;
-- `told` when it first asked for news after that, `aware` whether its program knew what to do; `behind` is the last certificate
-- body before it was asked for a new certificate by no order: a later one answers.
CREATE TABLE campaign_device (
    campaign BLOB NOT NULL,
    device BLOB NOT NULL,
    slot INTEGER NOT NULL,
    state INTEGER NOT NULL,
    wave INTEGER NOT NULL,
    epoch INTEGER,
    device_order BLOB,
    offered INTEGER,
    ended INTEGER,
    told INTEGER,
    aware INTEGER,
    behind INTEGER,
    -- A wave lies together: what is written of its devices is written to few pages.
    PRIMARY KEY (campaign, slot, device),
    UNIQUE (campaign, device)
) STRICT, WITHOUT ROWID;
-- Who was asked and has not answered (2).
CREATE INDEX campaign_device_open ON campaign_device (campaign, slot, device, wave, offered) WHERE state = 2;

-- What a device signed: its data at rest lie under this version of its storage key since the campaign asked for it.
CREATE TABLE device_storage (
    device BLOB NOT NULL,
    campaign BLOB NOT NULL,
    version INTEGER NOT NULL,
    records INTEGER NOT NULL,
    erasure TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (device, campaign)
) STRICT, WITHOUT ROWID;

CREATE TABLE campaign_count (
    campaign BLOB NOT NULL,
    wave INTEGER NOT NULL,
    state INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (campaign, wave, state)
) STRICT, WITHOUT ROWID;

-- Keys with which the server encrypts for others, in versions. Nothing of a version below the minimum is decrypted.
CREATE TABLE encryption_key (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    facility BLOB NOT NULL,
    created INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    minimum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `material` is wrapped by the signer, and null once the version is destroyed. `encryptions` and `blocks` (of 16 octets) are
-- set aside before they happen.
CREATE TABLE encryption_key_version (
    key BLOB NOT NULL,
    version INTEGER NOT NULL,
    state INTEGER NOT NULL,
    material BLOB,
    created INTEGER NOT NULL,
    deactivated INTEGER,
    destroyed INTEGER,
    encryptions INTEGER NOT NULL,
    blocks INTEGER NOT NULL,
    PRIMARY KEY (key, version)
) STRICT, WITHOUT ROWID;

-- Objects that programs store, each under a version of an encryption key.
CREATE TABLE object (
    key BLOB NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    created INTEGER NOT NULL,
    written INTEGER NOT NULL,
    ciphertext BLOB NOT NULL,
    UNIQUE (key, name)
) STRICT;
CREATE INDEX object_by_version ON object (key, version, name);

CREATE TABLE key (
    id BLOB NOT NULL PRIMARY KEY,
    key_type INTEGER NOT NULL,
    algorithm INTEGER NOT NULL,
    state INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    material_kind INTEGER NOT NULL,
    material BLOB,
    spki BLOB NOT NULL,
    created INTEGER NOT NULL,
    activated INTEGER,
    suspended INTEGER,
    deactivated INTEGER,
    compromised INTEGER,
    destroyed INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX key_by_purpose ON key (purpose, id);

CREATE TABLE authority (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind INTEGER NOT NULL,
    issuer BLOB,
    facility BLOB,
    is_default INTEGER NOT NULL,
    algorithm INTEGER NOT NULL,
    key BLOB NOT NULL,
    subject TEXT NOT NULL,
    shard_count INTEGER NOT NULL,
    serial BLOB NOT NULL,
    pem TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    crl_number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a CA whose key is destroyed has signed last; shard -1 is the full list.
CREATE TABLE final_crl (
    id INTEGER PRIMARY KEY,
    authority BLOB NOT NULL,
    shard INTEGER NOT NULL,
    number INTEGER NOT NULL,
    this_update INTEGER NOT NULL,
    der BLOB NOT NULL,
    UNIQUE (authority, shard)
) STRICT;

-- The hot half of a certificate: what status, listings and revocation need.
CREATE TABLE certificate (
    serial BLOB NOT NULL PRIMARY KEY,
    authority BLOB NOT NULL,
    status INTEGER NOT NULL,
    revoked INTEGER,
    reason INTEGER,
    profile INTEGER NOT NULL,
    device BLOB,
    facility BLOB,
    not_after INTEGER NOT NULL,
    body INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX certificate_by_authority ON certificate (authority, status, serial);
CREATE INDEX certificate_by_facility ON certificate (facility, status, serial) WHERE facility IS NOT NULL;
CREATE INDEX certificate_by_device ON certificate (device, serial) WHERE device IS NOT NULL;
CREATE INDEX certificate_by_expiry ON certificate (not_after, serial);
-- Nearly all are LDevIDs (4); the others are found here.
CREATE INDEX certificate_by_rare_profile ON certificate (profile, serial) WHERE profile <> 4;

-- The cold half, which never changes; appended in the order of issue.
CREATE TABLE certificate_body (
    body INTEGER PRIMARY KEY,
    spki BLOB NOT NULL,
    operator BLOB,
    not_before INTEGER NOT NULL,
    subject TEXT NOT NULL,
    der BLOB NOT NULL,
    -- The certificate that authenticated the renewal which gave this one.
    renews BLOB
) STRICT;

-- The facility of certificates without one is the empty blob.
CREATE TABLE certificate_count (
    facility BLOB NOT NULL,
    status INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (facility, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE spki (
    sha256 BLOB NOT NULL PRIMARY KEY,
    holder_kind INTEGER NOT NULL,
    holder BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE blocked_spki (
    sha256 BLOB NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE pre_image (
    serial BLOB NOT NULL PRIMARY KEY,
    authority BLOB NOT NULL,
    tbs BLOB NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE code (
    id BLOB NOT NULL PRIMARY KEY,
    device BLOB NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    -- The only key that it certifies, where it is of a label.
    bound BLOB,
    expires INTEGER NOT NULL,
    used INTEGER,
    used_with BLOB,
    serial BLOB,
    withdrawn INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX code_by_device ON code (device, id);

-- Labels of devices that stations made. A label alone claims nothing: its device must be let go, and then prove its key.
CREATE TABLE label (
    device BLOB NOT NULL PRIMARY KEY,
    hash BLOB NOT NULL,
    key BLOB NOT NULL,
    released INTEGER,
    released_by TEXT,
    facility BLOB,
    claimed INTEGER,
    expires INTEGER,
    completed INTEGER,
    -- When its owner sold the device: the claim that is completed next takes it out of suspension.
    resold INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE failed_attempt (
    device BLOB NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE voucher (
    id TEXT NOT NULL PRIMARY KEY,
    station BLOB NOT NULL,
    expires INTEGER NOT NULL,
    used_with BLOB NOT NULL,
    serial BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX voucher_by_expiry ON voucher (expires);

CREATE TABLE enrolment (
    id BLOB NOT NULL PRIMARY KEY,
    device BLOB NOT NULL,
    spki BLOB NOT NULL,
    requested INTEGER NOT NULL,
    state INTEGER NOT NULL,
    serial BLOB,
    UNIQUE (device, spki)
) STRICT, WITHOUT ROWID;
CREATE INDEX enrolment_by_state ON enrolment (state, id);

-- Keys proven to live in a device's TPM, all under one endorsement key; SHA-256 of SubjectPublicKeyInfo each.
CREATE TABLE proven_key (
    device BLOB NOT NULL,
    spki BLOB NOT NULL,
    endorsement_key BLOB NOT NULL,
    proven INTEGER NOT NULL,
    PRIMARY KEY (device, spki)
) STRICT, WITHOUT ROWID;

CREATE TABLE operator (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    voucher_key TEXT,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE operator_facility (
    operator BLOB NOT NULL,
    facility BLOB NOT NULL,
    PRIMARY KEY (operator, facility)
) STRICT, WITHOUT ROWID;

CREATE TABLE token (
    id BLOB NOT NULL PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    operator BLOB NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    withdrawn INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX token_by_operator ON token (operator, id);

-- Drills that were held, by the index of their log entries.
CREATE TABLE drill (
    id INTEGER PRIMARY KEY,
    recorded INTEGER NOT NULL,
    passed INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;

-- Break-glass credentials, by their proposals. `hash` is that of the sealed secret, `session` that of the token of the one session.
CREATE TABLE break_glass (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    facility BLOB,
    hash BLOB NOT NULL UNIQUE,
    session BLOB UNIQUE,
    opened INTEGER,
    ends INTEGER,
    ended INTEGER,
    sealed BLOB NOT NULL,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX break_glass_opened ON break_glass (opened) WHERE opened IS NOT NULL;

CREATE TABLE proposal (
    id BLOB NOT NULL PRIMARY KEY,
    state INTEGER NOT NULL,
    act TEXT NOT NULL,
    devices INTEGER NOT NULL,
    certificates INTEGER NOT NULL,
    proposer BLOB NOT NULL,
    proposer_name TEXT NOT NULL,
    decided_by BLOB,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    effective INTEGER,
    facility BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX proposal_by_state ON proposal (state, id);

-- Facilities and CAs, by their ids, for which nothing is issued, and why.
CREATE TABLE issuance_hold (
    target BLOB NOT NULL PRIMARY KEY,
    why TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Incidents. `subjects` is a digest of what may be compromised: the same incident is open once. The plan is what it was when
-- somebody made it; what came of its steps outlives a new plan that has them too.
CREATE TABLE incident (
    id BLOB NOT NULL PRIMARY KEY,
    state INTEGER NOT NULL,
    subjects BLOB NOT NULL,
    facility BLOB,
    document TEXT NOT NULL,
    plan TEXT,
    plan_sha256 TEXT,
    planned_by BLOB,
    planned_by_name TEXT,
    planned INTEGER,
    effective INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX incident_open ON incident (subjects) WHERE state = 1;

CREATE TABLE incident_step (
    incident BLOB NOT NULL,
    step BLOB NOT NULL,
    begun INTEGER NOT NULL,
    ended INTEGER,
    outcome TEXT,
    devices INTEGER,
    idx INTEGER,
    PRIMARY KEY (incident, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE incident_approval (
    incident BLOB NOT NULL,
    at INTEGER NOT NULL,
    operator BLOB NOT NULL,
    name TEXT NOT NULL,
    plan_sha256 TEXT NOT NULL,
    expires INTEGER NOT NULL,
    why TEXT NOT NULL,
    break_glass BLOB,
    PRIMARY KEY (incident, at, operator)
) STRICT, WITHOUT ROWID;

CREATE TABLE intent (
    id BLOB NOT NULL PRIMARY KEY,
    act TEXT NOT NULL,
    detail TEXT NOT NULL,
    at INTEGER NOT NULL,
    outcome TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX intent_open ON intent (id) WHERE outcome IS NULL;

CREATE TABLE setting (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The log. A leaf is the exact octets of its entry.
CREATE TABLE log (
    idx INTEGER PRIMARY KEY,
    entry BLOB NOT NULL
) STRICT;

-- Completed hash tiles, id = level * 2^56 + index: 256 hashes each, never changed again.
CREATE TABLE log_tile (
    id INTEGER PRIMARY KEY,
    hashes BLOB NOT NULL
) STRICT;

CREATE TABLE log_subject (
    subject BLOB NOT NULL,
    idx INTEGER NOT NULL,
    PRIMARY KEY (subject, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE log_facility (
    facility BLOB NOT NULL,
    idx INTEGER NOT NULL,
    PRIMARY KEY (facility, idx)
) STRICT, WITHOUT ROWID;

-- What operators did: those who act often, devices and the server, are not in it.
CREATE TABLE log_actor (
    actor BLOB NOT NULL,
    idx INTEGER NOT NULL,
    PRIMARY KEY (actor, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    size INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT;

-- One CA after another. Links are certificates as any, of roots only.
CREATE TABLE succession (
    successor BLOB NOT NULL PRIMARY KEY,
    predecessor BLOB NOT NULL,
    state INTEGER NOT NULL,
    why TEXT NOT NULL,
    made INTEGER NOT NULL,
    switched INTEGER,
    retired INTEGER,
    closed INTEGER,
    withdrawn INTEGER,
    new_with_old BLOB,
    old_with_new BLOB
) STRICT, WITHOUT ROWID;
-- A CA has one successor; those that were withdrawn (5) do not count.
CREATE UNIQUE INDEX succession_of ON succession (predecessor) WHERE state <> 5;

-- Devices that have proved in a handshake that they verify the server by this root alone.
CREATE TABLE device_trust (
    root BLOB NOT NULL,
    device BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (root, device)
) STRICT, WITHOUT ROWID;

-- How a key that devices or stations pin was succeeded: what the key before signed. Each has one successor.
CREATE TABLE pinned_key_succession (
    predecessor BLOB NOT NULL PRIMARY KEY,
    successor BLOB NOT NULL UNIQUE,
    message BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The newest key of a role that a device, or a station by its operator, has proved to hold, where it is not the first of its role.
CREATE TABLE pinned_key_holder (
    holder BLOB NOT NULL,
    role INTEGER NOT NULL,
    key BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (holder, role)
) STRICT, WITHOUT ROWID;

-- How often a key has signed, at most: set aside before it happens.
CREATE TABLE key_use (
    key BLOB NOT NULL PRIMARY KEY,
    uses INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
