/* The C interface of Keyfleet's device SDK.
 *
 * Conventions
 *   - Every function that can fail returns a kf_status: KF_OK, or a negative code that says what was wrong.
 *     kf_status_text() has a sentence for each. Nothing unwinds or longjmps across the border, in
 *     either direction: a hook in C++ must not throw.
 *   - A handle is memory of the caller, nothing to look into. It is made by one function and ended by another, which wipes
 *     it; it may not be copied or moved between the two. The library allocates nothing.
 *   - No pointer is kept after a call returns, but for what kf_hooks.context points to (until kf_stop) and for
 *     kf_est.code and kf_est.authorities (until kf_enrolment_end).
 *   - Every pointer must be valid for the length beside it or in its type. NULL or a pointer that is not aligned is refused
 *     with KF_NULL; NULL is allowed where the length beside it is 0. No two of a call's pointers may overlap unless both are
 *     only read.
 *   - One device, with the handles that were begun with it, belongs to one thread at a time. A hook must not call back with
 *     the handle whose call it serves: that gives KF_BUSY.
 *   - After a status other than KF_OK no output holds a secret or a plaintext; *length after KF_BUFFER says how much is needed
 *     where that is known.
 *   - Integers in messages are big endian; times are milliseconds since 1970-01-01 UTC.
 *   - kf_hazmat_ functions are for test vectors. A product that calls one is broken.
 *
 * Stack, as measured on a Cortex-M4 with the caller's frames: an exchange 14 KiB, enrolment 8 KiB, sealing and opening 6 KiB.
 */
#ifndef KEYFLEET_H
#define KEYFLEET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t kf_status;

#define KF_OK 0
/* Of the call */
#define KF_NULL (-1)             /* a pointer is NULL or not aligned */
#define KF_LENGTH (-2)           /* a length is not allowed */
#define KF_BUFFER (-3)           /* the buffer is too small */
#define KF_ARGUMENT (-4)         /* a code, text or number is not allowed */
#define KF_STATE (-5)            /* the handle was not made, was wiped, or is at another step */
#define KF_BUSY (-6)             /* the handle is in use */
#define KF_BOARD (-7)            /* a hook that is needed is missing, or the geometry is not supported */
#define KF_NOT_BUILT (-8)        /* this library lacks the algorithm */
/* Of the noise source */
#define KF_NOISE_HOOK (-16)      /* the hook failed */
#define KF_UNHEALTHY (-17)       /* a health test failed, now or earlier: kf_stop, mend, kf_start */
#define KF_NOT_PHYSICAL (-18)    /* not declared as physical and on: no key for production */
#define KF_REPEATS (-19)         /* the same samples as after the last power-on */
#define KF_STUCK (-20)           /* all random octets are the same */
#define KF_DRAW_AGAIN (-21)      /* no private key, once in 2^32: call again */
/* Of the storage */
#define KF_FLASH_HOOK (-32)      /* a hook failed */
#define KF_UNFORMATTED (-33)     /* blank: kf_format, once, in the factory */
#define KF_CORRUPT (-34)         /* holds what no power cut leaves; nothing was changed. Never an occasion for kf_format */
#define KF_FULL (-35)            /* no room */
#define KF_TOO_LARGE (-36)       /* more than one update may have */
#define KF_NOT_TAKEN (-37)       /* does not read back as written: worn-out cells */
#define KF_START_AGAIN (-38)     /* an earlier call failed in the middle: kf_stop, kf_start */
/* Of counters */
#define KF_COUNTER_HOOK (-48)    /* the hook failed */
#define KF_COUNTER_BACK (-49)    /* it went back or did not rise */
#define KF_EXHAUSTED (-50)       /* at its end: begin another boot; of the counter of boots, get another device key */
/* Of the chip's key */
#define KF_CHIP_HOOK (-64)       /* the hook failed */
#define KF_NOT_UNWRAPPED (-65)   /* a stored key does not unwrap */
#define KF_STILL_UNWRAPS (-66)   /* the chip unwraps with a key that it says it has revoked */
/* Of keys */
#define KF_MISSING (-80)         /* there is none */
#define KF_OCCUPIED (-81)        /* there is one already */
#define KF_OTHER_KEY (-82)       /* the certificate is for another key */
#define KF_CERTIFICATE (-83)     /* the certificate cannot be read */
#define KF_NOT_ANCHORED (-84)    /* no chain of P-256 signatures leads to the pinned root */
#define KF_UNDER_WAY (-85)       /* something that was begun has to be over first: a migration, or kf_nvs_adopt */
#define KF_NVS_FIRST (-86)       /* a partition of NVS lies under the storage key too: kf_nvs_step, or an adoption goes on first */
/* Of messages */
#define KF_MALFORMED (-96)       /* cannot be read */
#define KF_REFUSED (-97)         /* not authentic, does not open, or for another key; no more is known */
#define KF_REPLAYED (-98)        /* accepted before, or too old to tell */
#define KF_EXPIRED (-99)         /* the order came too late */
#define KF_OTHER_DEVICE (-100)   /* the order is for another device */
#define KF_UNPINNED_SERVER (-101) /* signed by a key that is not the pinned one */
#define KF_OUT_OF_ORDER (-102)   /* not the message that is due, or of another session or purpose */
#define KF_OLDER_KEY (-103)      /* the delivered key is older than the one held */
#define KF_NOT_AHEAD (-104)      /* the ratchet is there or beyond already */
#define KF_TOO_FAR (-105)        /* more steps than one call may take */
#define KF_BUG (-127)            /* a defect of the SDK: please report it */

/* A sentence for a person, lower case, never NULL; "unknown" for another number. */
const char *kf_status_text(kf_status status);

/* Sizes, octets. */
#define KF_EVIDENCE_OCTETS 54
#define KF_PUBLIC_KEY_OCTETS 91     /* SubjectPublicKeyInfo of a P-256 key */
#define KF_ROOTS_OCTETS 128         /* SHA-256 of each root that can be held */
#define KF_PROTECTED_OCTETS 256     /* the most of a protected record */
#define KF_NVS_VALUE_OCTETS 3968    /* the most of a value of NVS that is put: what one page holds */
#define KF_REQUEST_OCTETS 190       /* the most of a certification request */
#define KF_CERTIFICATE_OCTETS 2048  /* the most of a certificate */
#define KF_MESSAGE_OCTETS 384       /* the most of a message of an exchange, of an order and of a report */
#define KF_INFO_OCTETS 127          /* the most of the info of a derivation step */
#define KF_PLAINTEXT_OCTETS 16384   /* the most that is sealed at once */

/* Octets of an envelope of sealed payload are at most the plaintext's and this. */
#define KF_ENVELOPE_OVERHEAD_OCTETS 126

/* ---- What the firmware brings ---------------------------------------------------------------------------------- */

/* Each hook gets `context` and returns 0 for success; every other value is a failure of the hardware. */
typedef struct kf_hooks {
  void *context;
  /* One raw sample of the noise source, before any conditioning: an octet, or 0 or 1 of a binary source. */
  int32_t (*noise)(void *context, uint8_t *sample);
  /* The flash memory given to the store, erase-block and NOR-like: erased octets read 0xFF, programming clears bits. Offsets
   * count from the start of the area. `program` gets whole words, each once between two erasures, and returns when the cells
   * are programmed; `erase` erases one sector. Memory-mapped flash reads with memcpy; report double-bit ECC errors. */
  int32_t (*read)(void *context, uint32_t offset, uint8_t *octets, size_t length);
  int32_t (*program)(void *context, uint32_t offset, const uint8_t *octets, size_t length);
  int32_t (*erase)(void *context, uint32_t sector);
  /* HMAC-SHA-256 under a key that the chip holds (eFuse, OTP, secure element) and that wraps all others. Where the chip has
   * no engine, kf_hmac_sha256 computes it of a key in one-time programmable memory. A key in the same flash memory protects
   * nothing. */
  int32_t (*chip_hmac)(void *context, const uint8_t *message, size_t length, uint8_t *tag /* 32 */);
  /* May be NULL: the next value of a monotonic counter in hardware, from 1, durable before it returns. With it an old copy of
   * the whole flash memory that somebody writes back cannot make a boot number come twice; without it the store counts. */
  int32_t (*counter)(void *context, uint32_t *value);
  /* May be NULL: ends the chip's key for good, for kf_crypto_erase. An eFuse key cannot. */
  int32_t (*revoke)(void *context);
} kf_hooks;

/* What the designer of the board knows about the noise source. No test can find out; it stands in the evidence. */
#define KF_NOISE_PHYSICAL_ON 1        /* a physical source, and it is on now */
#define KF_NOISE_PSEUDO_RANDOM_ONLY 2 /* for example esp_random without radio and without its boot-loader source */
#define KF_NOISE_UNKNOWN 3
#define KF_ALPHABET_BINARY 1 /* a sample is 0 or 1 */
#define KF_ALPHABET_OCTET 2  /* a sample is an octet */
#define KF_MEDIUM_RAW 1      /* erasing reaches the very cells: raw NOR, flash of a microcontroller */
#define KF_MEDIUM_REMAPPED 2 /* something below remaps addresses; also the answer when in doubt */

#define KF_TAGS_CHECKSUM 1      /* find what power cuts and worn-out cells do */
#define KF_TAGS_AUTHENTICATED 2 /* and what somebody has written, by HMAC under the chip's key; not an old copy of everything */

/* Facts about the board and the device. */
typedef struct kf_board {
  uint8_t device[16];       /* the device's id in the registry, without its prefix */
  uint8_t noise_source[16]; /* which source, for the evidence: text or a hash */
  uint32_t word;            /* octets programmed at once: 1, 2, 4, 8, 16 or 32 */
  uint32_t sector;          /* octets erased at once: a multiple of 32 */
  uint32_t sectors;         /* given to the store: even, at least 2 */
  uint16_t noise_millibits; /* assessed min-entropy of a raw sample in thousandths of a bit (SP 800-90B), rounded down */
  uint8_t noise_alpha;      /* a false alarm has probability 2^-alpha: 20 to 40; 30 is usual */
  uint8_t noise_alphabet;   /* KF_ALPHABET_ */
  uint8_t noise_state;      /* KF_NOISE_ */
  uint8_t medium;           /* KF_MEDIUM_ */
  uint8_t tags;             /* KF_TAGS_; the same for the whole life of the store */
} kf_board;

/* Handles: aligned to 16 octets, which memory of malloc on a microcontroller may not be. */
#ifdef __cplusplus
#define KF_ALIGNED alignas(16)
#else
#define KF_ALIGNED _Alignas(16)
#endif
typedef struct kf_device { KF_ALIGNED uint64_t words[96]; } kf_device;
typedef struct kf_sealer { KF_ALIGNED uint64_t words[192]; } kf_sealer;
typedef struct kf_exchange { KF_ALIGNED uint64_t words[96]; } kf_exchange;
typedef struct kf_enrolment { KF_ALIGNED uint64_t words[160]; } kf_enrolment;
typedef struct kf_order { KF_ALIGNED uint64_t words[16]; } kf_order;
typedef struct kf_ratchet { KF_ALIGNED uint64_t words[16]; } kf_ratchet;
typedef struct kf_protected { KF_ALIGNED uint64_t words[24]; } kf_protected;

/* ---- The device: store, noise, chip ----------------------------------------------------------------------------- */

/* Erases everything and makes an empty store: once, in the factory, which repeats it should the power go meanwhile.
 * KF_ARGUMENT, KF_BOARD, KF_FLASH_HOOK, KF_NOT_TAKEN. */
kf_status kf_format(const kf_hooks *hooks, const kf_board *board);
/* Opens the store and settles what a power cut has left; tests 1,024 samples of the noise, which are used for nothing else,
 * and compares them with those of the last start. The hooks are copied. KF_ARGUMENT (also an assessment without meaning),
 * KF_BOARD; of the storage KF_UNFORMATTED, KF_CORRUPT; of the noise KF_NOISE_HOOK, KF_UNHEALTHY, KF_REPEATS. */
kf_status kf_start(kf_device *device, const kf_hooks *hooks, const kf_board *board);
void kf_stop(kf_device *device);

/* The state of the noise source has changed, for example because the radio went off. */
kf_status kf_declare_noise(kf_device *device, uint8_t state);
/* The start-up test again, on demand. */
kf_status kf_test_noise(kf_device *device);
/* Source, declared state, assessment, cut-offs, counts of samples, start-ups and faults: what can be shown later. */
kf_status kf_evidence(kf_device *device, uint8_t evidence[KF_EVIDENCE_OCTETS]);
/* Random octets, each 32 from ceil(320 / H) fresh samples; of whatever state the noise is declared. */
kf_status kf_random(kf_device *device, uint8_t *octets, size_t length);

/* Records of the firmware's own, ids 0x1000 to 0x7FFF, durable when the call returns. KF_MISSING when there is none. Those above lie
 * under the storage key: see kf_protected_put. */
kf_status kf_record_put(kf_device *device, uint16_t id, const uint8_t *octets, size_t length);
kf_status kf_record_get(kf_device *device, uint16_t id, uint8_t *octets, size_t capacity, size_t *length);
kf_status kf_record_remove(kf_device *device, uint16_t id);
/* The next number of a persistent counter in such a record, from 1, never twice whatever the power does. */
kf_status kf_next_number(kf_device *device, uint16_t id, uint64_t *number);

/* ---- The identity key: two slots -------------------------------------------------------------------------------- */

#define KF_IN_USE 1    /* certified and adopted */
#define KF_CERTIFIED 2 /* in the spare slot, with its certificate, not in use yet */
#define KF_CANDIDATE 3 /* in the spare slot, waiting for its certificate */
#define KF_PRODUCTION 1
#define KF_TRIAL 2 /* of whatever noise; it says so for ever */

/* What an erasure is worth. */
#define KF_OVERWRITTEN 1      /* the medium remaps addresses: copies may remain */
#define KF_ERASED 2           /* erased, not read back */
#define KF_ERASED_READ_BACK 3 /* erased on a medium where that reaches the cells, and every octet read back */
#define KF_CRYPTO_ERASED 4    /* the chip's key is gone, and what it had wrapped does not unwrap */

/* Makes a P-256 key in the spare slot, wrapped under the chip's key. KF_NOT_PHYSICAL for KF_PRODUCTION unless the noise was
 * declared as physical and on. kf_enrolment_next does this by itself. */
kf_status kf_identity_make(kf_device *device, uint8_t grade);
/* The certification request of the candidate (PKCS#10, DER): no name and no attribute, the server takes neither. */
kf_status kf_identity_request(kf_device *device, uint8_t request[KF_REQUEST_OCTETS], size_t *length);
/* Takes a certificate, DER, for the candidate from elsewhere than EST. Nothing but the key is compared: whoever calls this
 * has verified the chain. KF_OTHER_KEY, KF_CERTIFICATE. */
kf_status kf_identity_certify(kf_device *device, const uint8_t *certificate, size_t length);
/* Puts the certified key into use in one step, then erases the one before. */
kf_status kf_identity_adopt(kf_device *device, uint8_t *erasure);
/* Gives the certified key up and erases it; the one in use stays. */
kf_status kf_identity_discard(kf_device *device, uint8_t *erasure);
/* KF_MISSING when there is no such key or certificate. */
kf_status kf_identity_public_key(kf_device *device, uint8_t which, uint8_t public_key[KF_PUBLIC_KEY_OCTETS]);
kf_status kf_identity_grade(kf_device *device, uint8_t which, uint8_t *grade);
kf_status kf_identity_certificate(kf_device *device, uint8_t which, uint8_t *certificate, size_t capacity,
                                  size_t *length);
/* ECDSA with SHA-256: r and s, 32 octets each, for TLS. Of a message, or of its digest where the TLS library hashes. */
kf_status kf_identity_sign(kf_device *device, uint8_t which, const uint8_t *message, size_t length,
                           uint8_t signature[64]);
kf_status kf_identity_sign_digest(kf_device *device, uint8_t which, const uint8_t digest[32], uint8_t signature[64]);

/* ---- Enrolment over EST (RFC 7030), whatever the transport ------------------------------------------------------- */

typedef struct kf_est {
  const char *label;            /* between /est/ and the operation, such as the product line; NULL for none; at most 48 */
  const char *name;             /* the device's name in the registry, at most 64 octets; NULL without a code */
  const uint8_t *code;          /* one-time enrolment code; stays until kf_enrolment_end. NULL and 0 for none */
  size_t code_length;           /* name and code together at most 180 */
  uint8_t *authorities;         /* memory for the answer to cacerts, until kf_enrolment_end: 4 KiB are enough for three */
  size_t authorities_capacity;
  uint8_t anchor[32];           /* SHA-256 of the root's certificate, DER: the root from the factory; see kf_roots */
  uint8_t grade;                /* of the keys that are made: KF_PRODUCTION or KF_TRIAL */
  uint8_t has_factory_identity; /* not 0: the firmware has an IDevID of its own and can show it in TLS */
  uint8_t renew_now;            /* not 0: as an order to rotate asks for */
} kf_est;

#define KF_SEND 1      /* send the request, then call kf_enrolment_answer */
#define KF_WAIT 2      /* nothing to do before `until` */
#define KF_CHANGED 3   /* another certificate is in use: tell whoever holds a connection; call kf_enrolment_next again */
#define KF_ATTENTION 4 /* somebody has to act, see `reason`; trying goes on after an hour */
#define KF_GET 1
#define KF_POST 2
#define KF_NO_IDENTITY 0
#define KF_FACTORY_IDENTITY 4
#define KF_NO_BOOTSTRAP 1 /* no certificate, and nothing to get one with */
#define KF_ALL_REFUSED 2  /* the server has refused everything that the device can show */

/* What to do next. The pointers lead into the kf_enrolment and hold until its next call. */
typedef struct kf_request {
  uint64_t until;
  const char *path;
  const char *content_type;  /* NULL for none */
  const char *authorization; /* the value of the header, NULL for none; secret: it holds the code */
  const uint8_t *body;       /* base64 text, not ended by NUL */
  size_t body_length;
  uint8_t what;
  uint8_t method;
  uint8_t identity; /* the client certificate in TLS: KF_NO_IDENTITY, KF_IN_USE, KF_CERTIFIED or KF_FACTORY_IDENTITY */
  uint8_t reason;
} kf_request;

/* No Retry-After in the answer. */
#define KF_NO_RETRY_AFTER UINT32_MAX

/* The state as the store has it. Every step survives power loss: begin again after a start, and it goes on. */
kf_status kf_enrolment_begin(kf_enrolment *enrolment, kf_device *device, const kf_est *est);
/* Does what the device can do alone and says what is next. `now`: 0 on a device without a clock, for which nothing is ever due
 * but by renew_now. */
kf_status kf_enrolment_next(kf_enrolment *enrolment, kf_device *device, uint64_t now, kf_request *request);
/* Takes the answer: HTTP status, 0 when the server was not reached, 403 when the handshake ended because of the client
 * certificate. `body` is decoded in place. KF_OK says that the answer was understood, also a refusal; what became of it says
 * kf_enrolment_next. KF_MALFORMED, KF_OTHER_KEY, KF_NOT_ANCHORED: an answer of 200 that was not taken; it is tried again
 * later. TLS must verify the server; beyond that only what leads to the anchor is taken. */
kf_status kf_enrolment_answer(kf_enrolment *enrolment, kf_device *device, uint64_t now, uint16_t status,
                              uint32_t retry_after_seconds, uint8_t *body, size_t length);
void kf_enrolment_end(kf_enrolment *enrolment);

/* Roots that are held: SHA-256 of their certificates, the first of them `anchor` as long as nothing else was taken up. Every answer to
 * cacerts that kf_enrolment_answer takes adds those, durably, that a held one has signed a link certificate for; a root that is only
 * offered is not believed. TLS must verify the server by these: ask at each connection, or after each answer. */
kf_status kf_roots(kf_device *device, const uint8_t anchor[32], uint8_t roots[KF_ROOTS_OCTETS], uint8_t *count);
/* Takes up those that a held one vouches for in `answer`, the body of an answer to cacerts, which is overwritten; `taken` says how many
 * are new. For KF_ANCHOR_HEADER beside an answer to the poll for orders: SHA-256, hexadecimal, of the root that is to be taken up;
 * ask cacerts for it, and poll again by what is held then. `now`: 0 on a device without a clock. */
kf_status kf_roots_take_up(kf_device *device, const uint8_t anchor[32], uint64_t now, uint8_t *answer, size_t length,
                           uint8_t *taken);
/* What would remain without those that `answer`, a copy of the body of an answer to cacerts, hands out no more; it is overwritten.
 * KF_MISSING when all stay. Connect by the rest, with forget 0; when the server was found by them alone, call again with forget 1:
 * the others are forgotten, durably. The last one never is. */
kf_status kf_roots_remaining(kf_device *device, const uint8_t anchor[32], uint8_t *answer, size_t length, uint8_t forget,
                             uint8_t roots[KF_ROOTS_OCTETS], uint8_t *count);

/* ---- The device key --------------------------------------------------------------------------------------------- */

/* Where in the hierarchy a device key lies. */
typedef struct kf_key_place {
  uint8_t facility[16];
  uint32_t facility_epoch;
  uint32_t device_epoch;
} kf_key_place;

/* Stores the first device key, injected in the factory. KF_OCCUPIED when there is one: the next comes by an exchange. */
kf_status kf_device_key_inject(kf_device *device, const kf_key_place *place, const uint8_t key[32]);
/* KF_MISSING when the device has none. */
kf_status kf_device_key_place(kf_device *device, kf_key_place *place);
/* A key for data at rest on this device, of this label (at most 80 octets) and epoch. */
kf_status kf_storage_key(kf_device *device, const uint8_t *label, size_t length, uint32_t epoch, uint8_t key[32]);

#define KF_DELIVERY 1 /* a device key: the first, a new epoch, another facility */
#define KF_SESSION 2  /* keys of a session that the root cannot recompute */

#define KF_PIN_DELIVERY 1 /* the key by which kf_exchange_begin verifies the server */
#define KF_PIN_ORDER 2    /* the key whose orders kf_order_accept accepts */
#define KF_MAX_LINKS_OCTETS 12288 /* more than GET /v1/device/successions ever gives */

/* Takes up the newest key that the one in the firmware, or one that was taken up from it, leads to. `links` is the answer to
 * GET /v1/device/successions; NULL and 0 to ask only what is held. `taken` says 1 when there was a newer one: it is durable,
 * kf_exchange_begin and kf_order_accept use it from then on, and the same call may find another one behind it. `fingerprint` is
 * the SHA-256 of the key that is held: send that of KF_PIN_ORDER, hexadecimal, as keyfleet-order-key with GET /v1/device/orders, so
 * that the server signs orders with it. `pin` stays the key in the firmware; another one there ends what was taken up. */
kf_status kf_pin_take_up(kf_device *device, uint8_t role, const uint8_t pin[KF_PUBLIC_KEY_OCTETS],
                         const uint8_t *links, size_t length, uint8_t *taken, uint8_t fingerprint[32]);

/* An exchange with the server over any channel: POST each message to /v1/device/exchange as application/cbor. `pin` is the
 * server's delivery key. Needs an identity in use: KF_MISSING. */
kf_status kf_exchange_begin(kf_exchange *exchange, kf_device *device, uint8_t purpose,
                            const uint8_t pin[KF_PUBLIC_KEY_OCTETS], uint8_t message[KF_MESSAGE_OCTETS],
                            size_t *length);
/* Takes an answer and gives the next message; *length is 0 when the exchange is done. A delivered key is durable before it is
 * acknowledged, and the one before is erased when the server has answered. A message that is refused (KF_MALFORMED,
 * KF_REFUSED, KF_OUT_OF_ORDER, KF_UNPINNED_SERVER, KF_OLDER_KEY) leaves the exchange as it was. After any other failure, and
 * after power loss, begin another one: it delivers the same key. */
kf_status kf_exchange_step(kf_exchange *exchange, kf_device *device, const uint8_t *answer, size_t answer_length,
                           uint8_t message[KF_MESSAGE_OCTETS], size_t *length);
/* The encryption key of a service below the session, when a KF_SESSION is done. algorithm: KF_KEY_, see kf_derive. */
kf_status kf_exchange_session_key(kf_exchange *exchange, const char *service, uint8_t algorithm, uint8_t key[32],
                                  size_t *length);
void kf_exchange_end(kf_exchange *exchange);

/* ---- Sealed payloads (COSE_Encrypt0) ---------------------------------------------------------------------------- */

#define KF_AES_128_CCM 30
#define KF_AES_128_GCM 1
#define KF_CHACHA20_POLY1305 24

/* A sealer of one service, 1 to 16 of a-z, 0-9 and -, below the device key in use. It begins a boot: a number that never comes
 * twice and 128 fresh random bits. */
kf_status kf_sealer_begin(kf_sealer *sealer, kf_device *device, const char *service, uint8_t algorithm);
/* Seals at most KF_PLAINTEXT_OCTETS, bound to at most 256 octets of `aad`, such as the topic. KF_EXHAUSTED: this boot has sealed all that it may. */
kf_status kf_seal(kf_sealer *sealer, const uint8_t *plaintext, size_t plaintext_length, const uint8_t *aad,
                  size_t aad_length, uint8_t *envelope, size_t capacity, size_t *length);
void kf_sealer_wipe(kf_sealer *sealer);
/* Opens what the server has sealed for this device. It is delivered at most once: the store notes it before the plaintext is
 * given out, also across restarts. KF_REPLAYED, KF_REFUSED, KF_MALFORMED; then `plaintext` holds zeroes. */
kf_status kf_open(kf_device *device, const char *service, const uint8_t *envelope, size_t envelope_length,
                  const uint8_t *aad, size_t aad_length, uint8_t *plaintext, size_t capacity, size_t *length);

/* ---- Orders of the fleet ---------------------------------------------------------------------------------------- */

#define KF_ROTATE 1 /* renew the identity (renew_now), run a KF_DELIVERY, then kf_order_report */
#define KF_WIPE 2   /* kf_order_wipe */
#define KF_FACTORY_RESET 3 /* kf_order_factory_reset */
/* Headers of the poll, GET /v1/device/orders. With KF_ACTS as its value the firmware says that it knows KF_FACTORY_RESET: without this
 * the server does not order it. */
#define KF_ACTS_HEADER "keyfleet-acts"
#define KF_ACTS "factory-reset"
#define KF_STORAGE_HEADER "keyfleet-storage" /* "1": it knows requests for a new storage key, which come in this header */
#define KF_RENEWAL_HEADER "keyfleet-renewal" /* "1": it renews (renew_now) when the answer has this header */
#define KF_ANCHOR_HEADER "keyfleet-anchor"   /* of the answer: see kf_roots_take_up */
#define KF_DONE 1
#define KF_FAILED 2
#define KF_DECLINED 3

/* Verifies signature, device, expiry and counter; `pin` is the order key. The counter of a rotation is durable when it
 * returns. KF_REPLAYED, KF_EXPIRED, KF_OTHER_DEVICE, KF_UNPINNED_SERVER, KF_REFUSED, KF_MALFORMED. */
kf_status kf_order_accept(kf_order *order, kf_device *device, const uint8_t pin[KF_PUBLIC_KEY_OCTETS],
                          const uint8_t *message, size_t length, uint64_t now, uint8_t *act);
/* The signed report on a rotation. */
kf_status kf_order_report(kf_order *order, kf_device *device, uint8_t outcome, uint64_t now,
                          uint8_t report[KF_MESSAGE_OCTETS], size_t *length);
/* Signs the report, then replaces everything in the store by it and the order's counter in one step that power loss cannot
 * divide. */
kf_status kf_order_wipe(kf_order *order, kf_device *device, uint64_t now, uint8_t report[KF_MESSAGE_OCTETS],
                        size_t *length, uint8_t *erasure);
/* The report of a wipe, to be sent until the server has it. KF_MISSING when this device was not wiped. */
kf_status kf_wipe_report(kf_device *device, uint8_t report[KF_MESSAGE_OCTETS], size_t *length);
/* Signs the report with the identity in use, then leaves nothing in the store but records 0x7000 to 0x7fff (the maker's), the counter
 * of boots, the counter of the owner's orders, and the report, in one step that power loss cannot divide. Afterwards the device enrols
 * as one that never did; with its IDevID, which the firmware holds. */
kf_status kf_order_factory_reset(kf_order *order, kf_device *device, uint64_t now, uint8_t report[KF_MESSAGE_OCTETS],
                                 size_t *length, uint8_t *erasure);
/* The report of a factory reset, to be sent to the server that ordered it. KF_MISSING when there is none. */
kf_status kf_reset_report(kf_device *device, uint8_t report[KF_MESSAGE_OCTETS], size_t *length);
/* The server has the report, or refused it for good: it is forgotten. */
kf_status kf_reset_told(kf_device *device);
void kf_order_end(kf_order *order);

/* ---- Data at rest, under a storage key that is replaced ---------------------------------------------------------- */

/* The storage key: random, in versions, wrapped by the chip; the first is made when there is none. */
kf_status kf_protected_open(kf_protected *keys, kf_device *device);
/* The version that is in use, from 1. */
kf_status kf_protected_version(kf_protected *keys, uint32_t *version);
/* Protected records, ids 0x8000 to 0xFFFF, at most KF_PROTECTED_OCTETS, durable when the call returns. KF_MISSING when there is none,
 * KF_REFUSED when it does not open. */
kf_status kf_protected_put(kf_protected *keys, kf_device *device, uint16_t id, const uint8_t *octets, size_t length);
kf_status kf_protected_get(kf_protected *keys, kf_device *device, uint16_t id, uint8_t *octets, size_t capacity,
                           size_t *length);

#define KF_IDLE 0  /* nothing is under way */
#define KF_MOVED 1 /* another record lies under the new version */
#define KF_OVER 2  /* the older version is destroyed, its cells erased and read back, and that is written down */

/* Begins a migration to the next version, because `request` asks for it: the 16 octets of KF_STORAGE_HEADER (32 hexadecimal
 * digits) of an answer to GET /v1/device/orders, given to those who send that header. The same request is done once. */
kf_status kf_protected_begin(kf_protected *keys, kf_device *device, const uint8_t request[16]);
/* One step, one atomic update of the store: repeat until KF_OVER or KF_IDLE, also after power loss, when kf_protected_open found a
 * migration under way. Records open and are put meanwhile. KF_REFUSED for a record that opens under neither version: it stays, and so
 * does the older version. */
kf_status kf_protected_step(kf_protected *keys, kf_device *device, uint8_t *what);
/* The statement that the last migration is over, signed by the identity in use: POST it to /v1/device/storage as application/cbor
 * until the server has answered. KF_MISSING when none is over. */
kf_status kf_protected_report(kf_device *device, uint64_t now, uint8_t report[KF_MESSAGE_OCTETS], size_t *length);
void kf_protected_end(kf_protected *keys);

/* ---- A partition of ESP-IDF's NVS under the storage key ----------------------------------------------------------- */

/* The flash memory of the partition: hooks as those of kf_hooks, with a context of their own. Offsets count from the start of the
 * partition, a sector is a page of 4,096 octets. */
typedef struct kf_nvs {
  void *context;
  int32_t (*read)(void *context, uint32_t offset, uint8_t *octets, size_t length);
  int32_t (*program)(void *context, uint32_t offset, const uint8_t *octets, size_t length);
  int32_t (*erase)(void *context, uint32_t page);
  uint32_t word;  /* octets programmed at once: 1, 2 or 4 */
  uint32_t pages; /* 2 to 4,096, one of which stays blank */
} kf_nvs;

/* Makes an empty partition under the storage key, of whatever lies there: in the factory, and after a factory reset. */
kf_status kf_nvs_format(kf_protected *keys, kf_device *device, const kf_nvs *nvs);
/* Takes a partition one page on its way under the storage key, once in the life of a device: repeat until `what` is KF_OVER, also after
 * power loss. `from`: the encryption key and the tweak key that it lies under, as in nvs_sec_cfg_t of ESP-IDF; NULL for one in clear.
 * Those keys, where the firmware keeps them, are the firmware's to erase afterwards. KF_OCCUPIED when the partition is there already;
 * KF_REFUSED for a page that opens under no key, which stays; KF_FULL without a blank page; KF_UNDER_WAY during a migration. */
kf_status kf_nvs_adopt(kf_protected *keys, kf_device *device, const kf_nvs *nvs, const uint8_t from[64], uint8_t *what);
/* In place of kf_protected_step on a device with such a partition, which gives KF_NVS_FIRST: pages first, then records, then the older
 * version is destroyed. KF_REFUSED as above: the older version stays. */
kf_status kf_nvs_step(kf_protected *keys, kf_device *device, const kf_nvs *nvs, uint8_t *what);
/* What nvs_flash_secure_init_partition of ESP-IDF is to get at each start, when nothing is under way: encryption key, then tweak key.
 * Wipe it. */
kf_status kf_nvs_keys(kf_protected *keys, uint8_t nvs_keys[64]);
/* Finishes a kf_nvs_put or kf_nvs_remove that power loss has interrupted, before ESP-IDF's driver mounts the partition. The two do it by
 * themselves. */
kf_status kf_nvs_settle(kf_protected *keys, kf_device *device, const kf_nvs *nvs);

/* Types of values, as nvs_type_t of ESP-IDF has them. Numbers are little endian and of their own length; text is UTF-8 without its NUL. */
#define KF_NVS_U8 0x01
#define KF_NVS_I8 0x11
#define KF_NVS_U16 0x02
#define KF_NVS_I16 0x12
#define KF_NVS_U32 0x04
#define KF_NVS_I32 0x14
#define KF_NVS_U64 0x08
#define KF_NVS_I64 0x18
#define KF_NVS_STR 0x21
#define KF_NVS_BLOB 0x42

/* Sets a value of at most KF_NVS_VALUE_OCTETS, durable when the call returns; power loss leaves the old or the new. Namespace and key have
 * 1 to 15 octets. It writes a page anew, which is one erasure: what changes often is better written by ESP-IDF's driver. A number or text
 * that is there already is not written. KF_MISSING for a partition that was neither adopted nor made, KF_UNDER_WAY, KF_FULL. */
kf_status kf_nvs_put(kf_protected *keys, kf_device *device, const kf_nvs *nvs, const char *space, const char *key, uint8_t type,
                     const uint8_t *octets, size_t length);
/* Reads a value of any type, also before and during kf_nvs_adopt (`from` as there; afterwards nothing looks at it) and during a migration. KF_MISSING, KF_BUFFER, KF_CORRUPT for one that is damaged. */
kf_status kf_nvs_get(kf_protected *keys, kf_device *device, const kf_nvs *nvs, const uint8_t from[64], const char *space,
                     const char *key, uint8_t *octets, size_t capacity, size_t *length);
/* Removes a value. KF_MISSING when there is none, or as for kf_nvs_put. */
kf_status kf_nvs_remove(kf_protected *keys, kf_device *device, const kf_nvs *nvs, const char *space, const char *key);

/* ---- The ratchet: forward secrecy against who takes the device --------------------------------------------------- */

/* Begins at position 0; the device key is spent and erased. */
kf_status kf_ratchet_begin(kf_ratchet *ratchet, kf_device *device, uint8_t *erasure);
/* The ratchet as it was left. KF_MISSING when none was begun. */
kf_status kf_ratchet_load(kf_ratchet *ratchet, kf_device *device);
/* Goes forward; when it returns, the new key is durable and the old one is in no cell. KF_NOT_AHEAD, KF_TOO_FAR: nothing has
 * changed. After any failure load it again. */
kf_status kf_ratchet_advance(kf_ratchet *ratchet, kf_device *device, uint32_t position, uint8_t *erasure);
kf_status kf_ratchet_position(kf_ratchet *ratchet, uint32_t *position);
/* The encryption key of a service below a session (at most 80 octets) of the present position. */
kf_status kf_ratchet_session_key(kf_ratchet *ratchet, const uint8_t *session, size_t session_length,
                                 const char *service, uint8_t algorithm, uint8_t key[32], size_t *length);
void kf_ratchet_end(kf_ratchet *ratchet);

/* ---- Destruction ------------------------------------------------------------------------------------------------ */

#define KF_DEVICE_KEYS 1
#define KF_RATCHET_KEY 2
#define KF_IDENTITY_A 3
#define KF_IDENTITY_B 4
#define KF_STORAGE_KEY 5 /* what lies under it opens no more */

/* Removes a key, moves what is alive to the other bank, erases the old one and reads it back. */
kf_status kf_destroy(kf_device *device, uint8_t target, uint8_t *erasure);
/* Ends the chip's key by the hook `revoke`, and looks: what was wrapped before must not unwrap after. KF_BOARD without the hook,
 * KF_STILL_UNWRAPS. */
kf_status kf_crypto_erase(kf_device *device, uint8_t *erasure);

/* ---- Steps of the hierarchy by themselves ------------------------------------------------------------------------ */

/* Algorithms of derived keys. */
#define KF_KEY_AES_256_GCM 2
#define KF_KEY_AES_128_CCM 4
#define KF_KEY_AES_128_GCM 5
#define KF_KEY_CHACHA20_POLY1305 6

/* HKDF-Expand(parent, info, 32), one HMAC. Level, algorithm and purpose are those of vectors/derive.json; `derived` takes 32
 * octets, of which *length are the key and the rest is zero. context: at most 80 octets (KF_LENGTH). */
kf_status kf_derive(const uint8_t parent[32], uint8_t level, uint8_t algorithm, const char *purpose,
                    const uint8_t *context, size_t context_length, uint32_t epoch, uint8_t derived[32],
                    size_t *length);
/* The same step by SP 800-108r1 in counter mode. */
kf_status kf_derive_counter_mode(const uint8_t parent[32], uint8_t level, uint8_t algorithm, const char *purpose,
                                 const uint8_t *context, size_t context_length, uint32_t epoch, uint8_t derived[32],
                                 size_t *length);
/* The info of a step, for a parent that only hardware has: the key is HMAC-SHA-256(parent, info || 0x01). */
kf_status kf_info(uint8_t level, uint8_t algorithm, const char *purpose, const uint8_t *context, size_t context_length,
                  uint32_t epoch, uint8_t info[KF_INFO_OCTETS], size_t *length);
/* HKDF-Extract (RFC 5869): what is not uniformly random enters here. */
kf_status kf_extract(const uint8_t *salt, size_t salt_length, const uint8_t *input, size_t input_length,
                     uint8_t key[32]);
kf_status kf_hmac_sha256(const uint8_t key[32], const uint8_t *message, size_t length, uint8_t tag[32]);

/* ---- For test vectors only --------------------------------------------------------------------------------------- */

/* Where an application key lies. sender: 1 device, 2 server. */
typedef struct kf_place {
  uint8_t device[16];
  uint32_t facility_epoch;
  uint32_t device_epoch;
  uint8_t sender;
  const char *service;
} kf_place;

/* A sealer of a given boot. A boot that is used twice repeats nonces. */
kf_status kf_hazmat_sealer_begin(kf_sealer *sealer, const uint8_t device_key[32], const kf_place *place,
                                 uint8_t algorithm, uint32_t boot_number, const uint8_t boot_random[16]);
/* Opens without a replay window. */
kf_status kf_hazmat_open(const uint8_t device_key[32], const kf_place *place, const uint8_t *envelope,
                         size_t envelope_length, const uint8_t *aad, size_t aad_length, uint8_t *plaintext,
                         size_t capacity, size_t *length, uint32_t *boot_number, uint32_t *counter);

#ifdef __cplusplus
}
#endif
#endif
