//! The table: every action, and the roles that may do it.

use kf_api::operator::Role;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal => [$($role:ident),+];)+) => {
        /// Something that somebody can want to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Action {
            $($(#[$doc])* $name,)+
        }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name used in refusals and in `keyfleet access` tables: `noun.verb`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// Whether the table allows this action to `role`, scope aside.
            #[must_use]
            pub const fn allowed_to(self, role: Role) -> bool {
                match self {
                    $(Self::$name => matches!(role, $(Role::$role)|+),)+
                }
            }
        }
    };
}

actions! {
    /// Create a facility.
    FacilityCreate = "facility.create" => [Owner];
    /// See facilities.
    FacilityRead = "facility.read" => [Owner, FleetOperator, FacilityOperator, Auditor, Station];
    /// Create a product line or change its policy.
    ProductLineCreate = "product-line.create" => [Owner, FleetOperator];
    /// See product lines, which every facility shares.
    ProductLineRead = "product-line.read" => [Owner, FleetOperator, FacilityOperator, Auditor, Station];
    /// Register a device.
    DeviceRegister = "device.register" => [Owner, FleetOperator, FacilityOperator, Station];
    /// See devices.
    DeviceRead = "device.read" => [Owner, FleetOperator, FacilityOperator, Auditor, Station];
    /// Suspend or quarantine a device.
    DeviceSuspend = "device.suspend" => [Owner, FleetOperator, FacilityOperator];
    /// Release a device from suspension or quarantine.
    DeviceResume = "device.resume" => [Owner, FleetOperator, FacilityOperator];
    /// Decommission a device.
    DeviceDecommission = "device.decommission" => [Owner, FleetOperator, FacilityOperator];
    /// Move a device to another facility.
    DeviceMove = "device.move" => [Owner, FleetOperator];
    /// See certificates.
    CertificateRead = "certificate.read" => [Owner, FleetOperator, FacilityOperator, Auditor, Station];
    /// Have an IDevID or LDevID issued for a device from a request made elsewhere.
    CertificateIssueDevice = "certificate.issue-device" => [Owner, FleetOperator, FacilityOperator, Station];
    /// Have a TLS server certificate issued.
    CertificateIssueServer = "certificate.issue-server" => [Owner, FleetOperator];
    /// Have an operator certificate issued.
    CertificateIssueOperator = "certificate.issue-operator" => [Owner];
    /// Put certificates on hold.
    CertificateHold = "certificate.hold" => [Owner, FleetOperator, FacilityOperator];
    /// Release certificates from hold.
    CertificateRelease = "certificate.release" => [Owner, FleetOperator, FacilityOperator];
    /// Revoke certificates for good.
    CertificateRevoke = "certificate.revoke" => [Owner, FleetOperator, FacilityOperator];
    /// Create an issuing CA.
    AuthorityCreate = "authority.create" => [Owner];
    /// See CAs, which every facility shares.
    AuthorityRead = "authority.read" => [Owner, FleetOperator, FacilityOperator, Auditor, Station];
    /// Revoke a CA or everything it issued.
    AuthorityRevoke = "authority.revoke" => [Owner, FleetOperator];
    /// Make or withdraw a one-time enrolment code.
    CodeManage = "code.manage" => [Owner, FleetOperator, FacilityOperator, Station];
    /// See and decide enrolments that wait for a person.
    EnrolmentDecide = "enrolment.decide" => [Owner, FleetOperator, FacilityOperator];
    /// Stop issuance: in the whole fleet, for a facility, or by a CA.
    IssuanceStop = "issuance.stop" => [Owner, FleetOperator, FacilityOperator];
    /// Start issuance again.
    IssuanceStart = "issuance.start" => [Owner, FleetOperator, FacilityOperator];
    /// Add, disable and change operators, make and withdraw their tokens.
    OperatorManage = "operator.manage" => [Owner];
    /// See operators.
    OperatorRead = "operator.read" => [Owner, Auditor];
    /// Shut an operator out while an incident is dealt with: whose whole scope is one's own, and no owner but by an owner.
    OperatorShutOut = "operator.shut-out" => [Owner, FleetOperator, FacilityOperator];
    /// See incidents, what they reach, and their reports.
    IncidentRead = "incident.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// Open, plan, run and close incidents; each step of a plan asks for its own action besides.
    IncidentManage = "incident.manage" => [Owner, FleetOperator, FacilityOperator];
    /// Agree to the plan of an incident that somebody else made.
    IncidentApprove = "incident.approve" => [Owner, FleetOperator, FacilityOperator];
    /// See proposals.
    ProposalRead = "proposal.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// Approve or cancel a proposal of somebody else.
    ProposalDecide = "proposal.decide" => [Owner, FleetOperator, FacilityOperator];
    /// Put a public key on the list of keys that are never certified.
    KeyBlock = "key.block" => [Owner, FleetOperator];
    /// Open sealed payloads of devices.
    PayloadOpen = "payload.open" => [Owner, FleetOperator, FacilityOperator, Relay];
    /// Seal payloads for devices: commands.
    PayloadSeal = "payload.seal" => [Owner, FleetOperator, FacilityOperator];
    /// See key epochs, and which keys devices hold.
    EpochRead = "epoch.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// Give a facility or a device a new key epoch, or retire an old one.
    EpochAdvance = "epoch.advance" => [Owner, FleetOperator, FacilityOperator];
    /// See campaigns.
    CampaignRead = "campaign.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// Make campaigns, begin and end them.
    CampaignManage = "campaign.manage" => [Owner, FleetOperator, FacilityOperator];
    /// See orders to devices.
    OrderRead = "order.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// Propose an order to a device, or approve one.
    OrderCreate = "order.create" => [Owner, FleetOperator, FacilityOperator];
    /// Withdraw an order.
    OrderCancel = "order.cancel" => [Owner, FleetOperator, FacilityOperator];
    /// See batches of factory stations; a station sees its own.
    BatchRead = "batch.read" => [Owner, FleetOperator, FacilityOperator, Auditor, Station];
    /// Authorise a batch.
    BatchCreate = "batch.create" => [Owner, FleetOperator, FacilityOperator];
    /// Merge what a station made; a station merges its own.
    BatchImport = "batch.import" => [Owner, FleetOperator, FacilityOperator, Station];
    /// End a batch and everything that came of it.
    BatchCancel = "batch.cancel" => [Owner, FleetOperator, FacilityOperator];
    /// Let a device go, so that another facility may claim it.
    DeviceRelease = "device.release" => [Owner, FleetOperator, FacilityOperator];
    /// Claim a device by its label for a facility.
    DeviceClaim = "device.claim" => [Owner, FleetOperator, FacilityOperator];
    /// See manufacturers whose IDevIDs are accepted.
    VendorRead = "vendor.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// Trust a manufacturer's CA, or withdraw the trust.
    VendorManage = "vendor.manage" => [Owner, FleetOperator];
    /// See the key inventory, and what the rotation policy says of each key.
    InventoryRead = "inventory.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// See destructions and their receipts.
    DestructionRead = "destruction.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// Propose the destruction of keys, or approve one.
    KeyDestroy = "key.destroy" => [Owner, FleetOperator, FacilityOperator];
    /// See backups and their keys.
    BackupRead = "backup.read" => [Owner, FleetOperator, Auditor];
    /// Make a backup, which is sealed to the newest backup key.
    BackupCreate = "backup.create" => [Owner, FleetOperator];
    /// Propose that a backup is retired, or approve it.
    BackupRetire = "backup.retire" => [Owner, FleetOperator];
    /// Say to whom backups are sealed from now on.
    BackupKeyCreate = "backup-key.create" => [Owner];
    /// Propose that a restored registry is taken into service, or approve it.
    RestoreAccept = "restore.accept" => [Owner, FleetOperator];
    /// See encryption keys, without their material.
    EncryptionKeyRead = "encryption-key.read" => [Owner, FleetOperator, FacilityOperator, Auditor, Application];
    /// Make an encryption key, rotate it, raise its minimum version, destroy old versions.
    EncryptionKeyManage = "encryption-key.manage" => [Owner, FleetOperator, FacilityOperator];
    /// Encrypt, and have data keys made.
    DataEncrypt = "data.encrypt" => [FleetOperator, FacilityOperator, Application];
    /// Decrypt.
    DataDecrypt = "data.decrypt" => [FleetOperator, FacilityOperator, Application];
    /// Bring ciphertexts under the newest version, without seeing what is in them.
    DataRewrap = "data.rewrap" => [Owner, FleetOperator, FacilityOperator, Application];
    /// Make successors of the server's own keys: wrapping key, log, delivery, orders.
    ServerKeyManage = "server-key.manage" => [Owner, FleetOperator];
    /// Store objects under encryption keys, change and delete them.
    ObjectWrite = "object.write" => [FleetOperator, FacilityOperator, Application];
    /// Open stored objects: read what is in them.
    ObjectOpen = "object.open" => [FleetOperator, FacilityOperator, Application];
    /// See which objects are stored, without what is in them.
    ObjectRead = "object.read" => [Owner, FleetOperator, FacilityOperator, Auditor, Application];
    /// See escrows.
    EscrowRead = "escrow.read" => [Owner, FleetOperator, Auditor];
    /// Make an escrow known, use its shares, propose a release or approve one.
    EscrowManage = "escrow.manage" => [Owner, FleetOperator];
    /// See break-glass credentials, and how they were used.
    BreakGlassRead = "break-glass.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// Propose a break-glass credential, or approve one.
    BreakGlassCreate = "break-glass.create" => [Owner, FleetOperator];
    /// Open a break-glass credential whose secret one has.
    BreakGlassOpen = "break-glass.open" => [Owner, FleetOperator, FacilityOperator];
    /// End a session, or withdraw what was not opened.
    BreakGlassEnd = "break-glass.end" => [Owner, FleetOperator, FacilityOperator];
    /// Review what was done behind broken glass.
    BreakGlassReview = "break-glass.review" => [Owner, FleetOperator, FacilityOperator];
    /// Read the log.
    AuditRead = "audit.read" => [Owner, FleetOperator, FacilityOperator, Auditor];
    /// See the state of the server.
    StatusRead = "status.read" => [Owner, FleetOperator, FacilityOperator, Auditor, Station];
}

impl Action {
    /// The action of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }

    /// Whether the session of a break-glass credential may do this, in its scope: see, stop, and what an incident's plan does to
    /// recover. Never what founds, destroys, lets in, or opens more glass.
    #[must_use]
    pub const fn in_break_glass(self) -> bool {
        matches!(
            self,
            Self::FacilityRead
                | Self::DeviceRead
                | Self::CertificateRead
                | Self::AuthorityRead
                | Self::ProductLineRead
                | Self::IncidentRead
                | Self::ProposalRead
                | Self::EpochRead
                | Self::OrderRead
                | Self::BatchRead
                | Self::CampaignRead
                | Self::InventoryRead
                | Self::BreakGlassRead
                | Self::AuditRead
                | Self::StatusRead
                | Self::DeviceSuspend
                | Self::CertificateHold
                | Self::CertificateRevoke
                | Self::IssuanceStop
                | Self::OperatorShutOut
                | Self::IncidentManage
                | Self::IncidentApprove
                | Self::BatchCancel
                | Self::EpochAdvance
                | Self::KeyBlock
                | Self::OrderCancel
                | Self::BreakGlassEnd
        )
    }

    /// When this takes a second person, in one sentence. The rule itself is [`crate::DualControl`].
    #[must_use]
    pub const fn second_person(self) -> &'static str {
        match self {
            Self::CertificateRevoke | Self::DeviceDecommission | Self::BatchCancel | Self::EpochAdvance => {
                "for good on more devices than `dual_control_above`, or at several facilities at once"
            }
            Self::BatchCreate => "for more devices than `batch_dual_control_above`",
            Self::DeviceMove
            | Self::AuthorityRevoke
            | Self::OrderCreate
            | Self::KeyDestroy
            | Self::BackupRetire
            | Self::RestoreAccept
            | Self::BreakGlassCreate => "always",
            Self::BreakGlassReview => "two, and neither is who opened it",
            Self::EscrowManage => "for a release",
            Self::IncidentManage => "for the permanent steps of a plan, which somebody else must approve",
            Self::IncidentApprove | Self::ProposalDecide => "this is the second person, and never who proposed it",
            _ => "never",
        }
    }

    /// Whether this reads something that all facilities share, so that a facility operator may see it although it
    /// belongs to no facility.
    #[must_use]
    pub const fn is_shared_reading(self) -> bool {
        matches!(self, Self::ProductLineRead | Self::AuthorityRead | Self::StatusRead | Self::VendorRead)
    }
}
