/* The C interface of Keyfleet's device SDK: derivation, health-tested randomness, sealed payloads.
 *
 * No function keeps a pointer after it returns, but for the hooks of a kf_noise. None allocates, none is thread-safe on
 * one handle. Every pointer must be valid for the length beside it; NULL is refused with KF_ARGUMENT.
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
#define KF_ARGUMENT (-1)      /* NULL, a length or a code that is not allowed */
#define KF_BUFFER (-2)        /* the buffer is too small */
#define KF_NOISE (-3)         /* the noise hook failed, or a health test did */
#define KF_NOT_PHYSICAL (-4)  /* noise not declared as physical and on makes no production key */
#define KF_COUNTER (-5)       /* the counter hook failed */
#define KF_REFUSED (-6)       /* does not open; no more is known */
#define KF_EXHAUSTED (-7)     /* the boot has sealed all it may: begin another one */
#define KF_HANDLE (-8)        /* the handle was not made, or was wiped */
#define KF_STUCK (-9)         /* all random octets are the same */

/* A text for a person; never NULL. */
const char *kf_status_text(kf_status status);

/* What the designer of the board knows about the noise source. */
#define KF_NOISE_PHYSICAL_ON 1
#define KF_NOISE_PSEUDO_RANDOM_ONLY 2
#define KF_NOISE_UNKNOWN 3

/* What the firmware gives: each returns 0 for success. */
typedef struct kf_hooks {
  void *context;
  int32_t (*noise)(void *context, uint8_t *sample);   /* one raw sample, before any conditioning */
  int32_t (*counter)(void *context, uint32_t *value); /* the next value, durable before it returns, from 1 */
} kf_hooks;

/* Handles: memory of the caller, nothing to look into. Do not copy them. */
typedef struct kf_noise { union { uint64_t words[64]; long double alignment; } opaque; } kf_noise;
typedef struct kf_sealer { union { uint64_t words[512]; long double alignment; } opaque; } kf_sealer;

/* Tests 1,024 samples. millibits: assessed min-entropy of a sample in thousandths of a bit. The hooks are kept. */
kf_status kf_noise_start(kf_noise *noise, const kf_hooks *hooks, uint8_t state, uint16_t millibits);
/* Octets for a key. Production: KF_NOT_PHYSICAL unless the source was declared as physical and on. */
kf_status kf_noise_key(kf_noise *noise, uint8_t key[32]);
void kf_noise_wipe(kf_noise *noise);

/* One step of the hierarchy: HKDF-Expand(key, info). `derived` takes 32 octets; *length says how many are the key. */
kf_status kf_derive(const uint8_t key[32], uint8_t level, uint8_t algorithm, const char *purpose,
                    const uint8_t *context, size_t context_length, uint32_t epoch, uint8_t derived[32],
                    size_t *length);

/* Where an application key lies. sender: 1 device, 2 server. */
typedef struct kf_place {
  uint8_t device[16];
  uint32_t facility_epoch;
  uint32_t device_epoch;
  uint8_t sender;
  const char *service; /* 1 to 16 of a-z, 0-9 and - */
} kf_place;

#define KF_AES_128_CCM 30
#define KF_AES_128_GCM 1
#define KF_CHACHA20_POLY1305 24

/* A sealer of one boot: steps the counter, draws 16 octets, derives the boot's key. */
kf_status kf_sealer_begin(kf_sealer *sealer, const uint8_t device_key[32], const kf_place *place, uint8_t algorithm,
                          kf_noise *noise);
/* The same with a given boot, for test vectors ONLY: a boot that is used twice repeats nonces. */
kf_status kf_hazmat_sealer_begin(kf_sealer *sealer, const uint8_t device_key[32], const kf_place *place,
                                 uint8_t algorithm, uint32_t boot_number, const uint8_t boot_random[16]);
kf_status kf_seal(kf_sealer *sealer, const uint8_t *plaintext, size_t plaintext_length, const uint8_t *aad,
                  size_t aad_length, uint8_t *envelope, size_t capacity, size_t *length);
void kf_sealer_wipe(kf_sealer *sealer);

/* Opens one envelope. It says nothing about replays: *boot_number and *counter are for the caller's window. */
kf_status kf_open(const uint8_t device_key[32], const kf_place *place, const uint8_t *envelope,
                  size_t envelope_length, const uint8_t *aad, size_t aad_length, uint8_t *plaintext, size_t capacity,
                  size_t *length, uint32_t *boot_number, uint32_t *counter);

#ifdef __cplusplus
}
#endif
#endif
