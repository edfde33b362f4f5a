/* Calls the C interface in every wrong way, on a flash memory in RAM. */
#include "check.h"

#define SECTOR 1024u
#define SECTORS 4u

static uint8_t flash[SECTOR * SECTORS];
static uint32_t state = 1, ticks;
static int is_stuck, forgets, fails_noise, fails_flash, fails_chip, fails_counter, is_revoked, lies_about_revocation;
static uint8_t chip_key[32] = {0xee};
static kf_device device;
static kf_status said_to_hook;

static int32_t noise(void *context, uint8_t *sample) {
  (void)context;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  *sample = is_stuck ? 7 : (uint8_t)(state >> 8);
  return fails_noise;
}

static int32_t flash_read(void *context, uint32_t offset, uint8_t *octets, size_t length) {
  (void)context;
  memcpy(octets, flash + offset, length);
  return fails_flash;
}

static int32_t flash_program(void *context, uint32_t offset, const uint8_t *octets, size_t length) {
  size_t i;
  (void)context;
  for (i = 0; i < length && !forgets; i++) flash[offset + i] &= octets[i];
  return fails_flash;
}

static int32_t flash_erase(void *context, uint32_t sector) {
  (void)context;
  memset(flash + sector * SECTOR, 0xff, SECTOR);
  return fails_flash;
}

static int32_t chip_hmac(void *context, const uint8_t *message, size_t length, uint8_t *tag) {
  (void)context;
  said_to_hook = kf_declare_noise(&device, KF_NOISE_UNKNOWN); /* what a hook must not do */
  if (is_revoked && !lies_about_revocation) return -1;
  return fails_chip != 0 ? fails_chip : kf_hmac_sha256(chip_key, message, length, tag);
}

static int32_t count(void *context, uint32_t *value) {
  (void)context;
  *value = ++ticks;
  return fails_counter;
}

static int32_t revoke(void *context) {
  (void)context;
  is_revoked = 1;
  return 0;
}

static const kf_hooks hooks = {NULL, noise, flash_read, flash_program, flash_erase, chip_hmac, NULL, NULL};
static const kf_board board = {{1}, "a test", 8, SECTOR, SECTORS, 4000, 30, KF_ALPHABET_OCTET, KF_NOISE_PHYSICAL_ON, KF_MEDIUM_RAW, KF_TAGS_CHECKSUM};

static int starting(void) {
  kf_hooks without = hooks;
  kf_board wrong = board;
  memset(flash, 0xff, sizeof flash);
  SAYS(kf_start(NULL, &hooks, &board), KF_NULL);
  SAYS(kf_start(&device, NULL, &board), KF_NULL);
  SAYS(kf_start(&device, &hooks, NULL), KF_NULL);
  SAYS(kf_start((kf_device *)(void *)((uint8_t *)&device + 1), &hooks, &board), KF_NULL);
  without.chip_hmac = NULL;
  SAYS(kf_start(&device, &without, &board), KF_BOARD);
  wrong.noise_millibits = 0;
  SAYS(kf_start(&device, &hooks, &wrong), KF_ARGUMENT);
  wrong = board;
  wrong.noise_state = 0;
  SAYS(kf_start(&device, &hooks, &wrong), KF_ARGUMENT);
  wrong = board;
  wrong.sectors = 3;
  SAYS(kf_start(&device, &hooks, &wrong), KF_BOARD);
  SAYS(kf_start(&device, &hooks, &board), KF_UNFORMATTED);
  SAYS(kf_declare_noise(&device, KF_NOISE_UNKNOWN), KF_STATE); /* it was never made */
  fails_flash = -1;
  SAYS(kf_format(&hooks, &board), KF_FLASH_HOOK);
  fails_flash = 0;
  SAYS(kf_format(&hooks, &board), KF_OK);
  is_stuck = 1;
  SAYS(kf_start(&device, &hooks, &board), KF_UNHEALTHY);
  is_stuck = 0;
  fails_noise = 5;
  SAYS(kf_start(&device, &hooks, &board), KF_NOISE_HOOK);
  fails_noise = 0;
  state = 99;
  SAYS(kf_start(&device, &hooks, &board), KF_OK);
  state = 99;
  SAYS(kf_start(&device, &hooks, &board), KF_REPEATS);
  SAYS(kf_start(&device, &hooks, &board), KF_OK);
  flash[20] ^= 0x10;
  flash[40] ^= 0x10;
  flash[60] ^= 0x10;
  SAYS(kf_start(&device, &hooks, &board), KF_CORRUPT);
  wrong = board;
  wrong.tags = KF_TAGS_AUTHENTICATED;
  fails_chip = 1;
  SAYS(kf_format(&hooks, &wrong), KF_CHIP_HOOK);
  fails_chip = 0;
  SAYS(kf_format(&hooks, &wrong), KF_OK);
  SAYS(kf_start(&device, &hooks, &wrong), KF_OK);
  SAYS(kf_record_put(&device, 0x1000, chip_key, 1), KF_OK);
  kf_stop(&device);
  chip_key[0] ^= 1; /* another chip's flash memory */
  SAYS(kf_start(&device, &hooks, &wrong), KF_CORRUPT);
  chip_key[0] ^= 1;
  SAYS(kf_start(&device, &hooks, &board), KF_CORRUPT); /* by checksum */
  SAYS(kf_start(&device, &hooks, &wrong), KF_OK);
  SAYS(kf_format(&hooks, &board), KF_OK);
  SAYS(kf_start(&device, &hooks, &board), KF_OK);
  return 0;
}

static int noise_and_records(void) {
  static const uint8_t abc[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                  0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
  static const uint8_t large[40000];
  uint8_t octets[64] = {0}, evidence[KF_EVIDENCE_OCTETS], signature[64], same[64];
  size_t length = 0;
  uint64_t number = 0;
  SAYS(kf_random(&device, NULL, 16), KF_NULL);
  SAYS(kf_random(&device, octets, SIZE_MAX), KF_LENGTH);
  SAYS(kf_random(&device, octets, sizeof octets), KF_OK);
  CHECK(memcmp(octets, octets + 32, 32) != 0);
  SAYS(kf_declare_noise(&device, 9), KF_ARGUMENT);
  SAYS(kf_declare_noise(&device, KF_NOISE_PSEUDO_RANDOM_ONLY), KF_OK);
  SAYS(kf_identity_make(&device, KF_PRODUCTION), KF_NOT_PHYSICAL);
  SAYS(kf_evidence(&device, evidence), KF_OK);
  SAYS(kf_identity_make(&device, 3), KF_ARGUMENT);
  SAYS(kf_identity_make(&device, KF_TRIAL), KF_OK);
  SAYS(said_to_hook, KF_BUSY);
  SAYS(kf_identity_grade(&device, KF_CANDIDATE, octets), KF_OK);
  CHECK(octets[0] == KF_TRIAL);
  /* A digest signs as its message does: SHA-256 of "abc", FIPS 180-4. */
  SAYS(kf_identity_sign(&device, KF_CANDIDATE, (const uint8_t *)"abc", 3, signature), KF_OK);
  SAYS(kf_identity_sign_digest(&device, KF_CANDIDATE, abc, same), KF_OK);
  CHECK(memcmp(signature, same, sizeof same) == 0);
  SAYS(kf_declare_noise(&device, KF_NOISE_PHYSICAL_ON), KF_OK);
  SAYS(kf_test_noise(&device), KF_OK);
  SAYS(kf_record_put(&device, 0x0fff, octets, 4), KF_ARGUMENT); /* the SDK's own */
  SAYS(kf_record_get(&device, 0x1000, octets, sizeof octets, &length), KF_MISSING);
  SAYS(kf_record_put(&device, 0x1000, octets, 40), KF_OK);
  SAYS(kf_record_get(&device, 0x1000, octets, 39, &length), KF_BUFFER);
  CHECK(length == 40);
  SAYS(kf_record_get(&device, 0x1000, octets, sizeof octets, NULL), KF_NULL);
  SAYS(kf_record_remove(&device, 0x1000), KF_OK);
  SAYS(kf_record_put(&device, 0x1000, flash, sizeof flash), KF_FULL);
  SAYS(kf_record_put(&device, 0x1000, large, sizeof large), KF_TOO_LARGE);
  SAYS(kf_next_number(&device, 0x1001, &number), KF_OK);
  SAYS(kf_next_number(&device, 0x1001, &number), KF_OK);
  CHECK(number == 2);
  return 0;
}

static int protected_and_roots(void) {
  static kf_protected keys;
  uint8_t octets[KF_PROTECTED_OCTETS + 1] = {7}, roots[KF_ROOTS_OCTETS], anchor[32] = {9}, what = 99, report[KF_MESSAGE_OCTETS];
  static const uint8_t request[16] = {1}, none[32];
  uint32_t version = 0;
  size_t length = 0;
  SAYS(kf_protected_put(&keys, &device, 0x8000, octets, 4), KF_STATE);
  SAYS(kf_protected_open(NULL, &device), KF_NULL);
  fails_chip = 1;
  SAYS(kf_protected_open(&keys, &device), KF_CHIP_HOOK);
  fails_chip = 0;
  SAYS(kf_protected_open(&keys, &device), KF_OK);
  SAYS(kf_protected_version(&keys, NULL), KF_NULL);
  SAYS(kf_protected_version(&keys, &version), KF_OK);
  CHECK(version == 1);
  SAYS(kf_protected_put(&keys, &device, 0x7fff, octets, 4), KF_ARGUMENT);
  SAYS(kf_record_put(&device, 0x8000, octets, 4), KF_ARGUMENT); /* nor the other way round */
  SAYS(kf_protected_put(&keys, &device, 0x8000, octets, sizeof octets), KF_LENGTH);
  SAYS(kf_protected_put(&keys, &device, 0x8000, octets, 40), KF_OK);
  SAYS(kf_protected_get(&keys, &device, 0x8001, octets, sizeof octets, &length), KF_MISSING);
  SAYS(kf_protected_get(&keys, &device, 0x8000, octets, 39, &length), KF_BUFFER);
  CHECK(length == 40);
  SAYS(kf_protected_report(&device, 0, report, &length), KF_MISSING); /* none is over */
  SAYS(kf_protected_step(&keys, &device, &what), KF_OK);
  CHECK(what == KF_IDLE);
  SAYS(kf_protected_begin(&keys, &device, NULL), KF_NULL);
  SAYS(kf_protected_begin(&keys, &device, request), KF_OK);
  SAYS(kf_protected_step(&keys, &device, &what), KF_OK);
  CHECK(what == KF_MOVED);
  SAYS(kf_protected_step(&keys, &device, &what), KF_OK);
  CHECK(what == KF_OVER);
  SAYS(kf_protected_begin(&keys, &device, request), KF_OK); /* once */
  SAYS(kf_protected_step(&keys, &device, &what), KF_OK);
  CHECK(what == KF_IDLE);
  SAYS(kf_protected_get(&keys, &device, 0x8000, octets, sizeof octets, &length), KF_OK);
  CHECK(length == 40 && octets[0] == 7);
  SAYS(kf_protected_report(&device, 0, report, &length), KF_MISSING); /* no identity signs it */
  kf_protected_end(&keys);
  SAYS(kf_protected_get(&keys, &device, 0x8000, octets, sizeof octets, &length), KF_STATE);
  SAYS(kf_roots(&device, NULL, roots, &what), KF_NULL);
  SAYS(kf_roots(&device, anchor, roots, &what), KF_OK);
  CHECK(what == 1 && memcmp(roots, anchor, 32) == 0 && memcmp(roots + 32, none, 32) == 0);
  SAYS(kf_roots_remaining(&device, anchor, octets, 20, 0, roots, &what), KF_MALFORMED);
  SAYS(kf_roots_take_up(&device, anchor, 0, octets, 20, &what), KF_MALFORMED);
  SAYS(kf_roots_take_up(&device, anchor, 0, NULL, 20, &what), KF_NULL);
  return 0;
}

static int keys(void) {
  static uint8_t envelope[256], plaintext[64];
  static kf_sealer sealer;
  uint8_t key[32] = {7}, octets[91], signature[64], erasure;
  size_t length = 0;
  kf_key_place place = {{2}, 1, 1};
  const kf_place vector = {{1}, 1, 1, 1, "telemetry"};
  SAYS(kf_identity_public_key(&device, 0, octets), KF_ARGUMENT);
  SAYS(kf_identity_public_key(&device, KF_IN_USE, octets), KF_MISSING);
  SAYS(kf_identity_sign(&device, KF_CERTIFIED, key, 32, signature), KF_MISSING);
  SAYS(kf_identity_certify(&device, key, sizeof key), KF_CERTIFICATE);
  SAYS(kf_identity_adopt(&device, &erasure), KF_MISSING);
  SAYS(kf_device_key_place(&device, &place), KF_MISSING);
  SAYS(kf_sealer_begin(&sealer, &device, "telemetry", KF_AES_128_CCM), KF_MISSING);
  fails_chip = 1;
  SAYS(kf_device_key_inject(&device, &place, key), KF_CHIP_HOOK);
  fails_chip = 0;
  SAYS(kf_device_key_inject(&device, &place, key), KF_OK);
  SAYS(kf_device_key_inject(&device, &place, key), KF_OCCUPIED);
  chip_key[0] ^= 1;
  SAYS(kf_device_key_place(&device, &place), KF_NOT_UNWRAPPED);
  chip_key[0] ^= 1;
  SAYS(kf_storage_key(&device, flash, 81, 0, key), KF_LENGTH);
  SAYS(kf_seal(&sealer, NULL, 0, NULL, 0, envelope, sizeof envelope, &length), KF_STATE);
  SAYS(kf_hazmat_sealer_begin(&sealer, key, &vector, KF_AES_128_CCM, 1, plaintext), KF_STUCK); /* all zeroes */
  SAYS(kf_sealer_begin(&sealer, &device, "Not a label", KF_AES_128_CCM), KF_ARGUMENT);
  SAYS(kf_sealer_begin(&sealer, &device, "telemetry", 77), KF_ARGUMENT);
  SAYS(kf_sealer_begin(&sealer, &device, "telemetry", KF_AES_128_CCM), KF_OK);
  SAYS(kf_seal(&sealer, NULL, 4, NULL, 0, envelope, sizeof envelope, &length), KF_NULL);
  SAYS(kf_seal(&sealer, key, 4, NULL, 0, envelope, 8, &length), KF_BUFFER);
  SAYS(kf_seal(&sealer, key, 4, flash, 257, envelope, sizeof envelope, &length), KF_LENGTH);
  SAYS(kf_seal(&sealer, key, 4, NULL, 0, envelope, sizeof envelope, &length), KF_OK);
  SAYS(kf_open(&device, "telemetry", envelope, length, NULL, 0, plaintext, sizeof plaintext, &length), KF_REFUSED);
  SAYS(kf_open(&device, "telemetry", envelope, 9, NULL, 0, plaintext, sizeof plaintext, &length), KF_MALFORMED);
  kf_sealer_wipe(&sealer);
  SAYS(kf_seal(&sealer, key, 4, NULL, 0, envelope, sizeof envelope, &length), KF_STATE);
  kf_sealer_wipe(&sealer);
  kf_sealer_wipe(NULL);
  return 0;
}

/* Whether every octet of a handle that was ended is wiped. */
static int is_wiped(const void *handle, size_t length) {
  const uint8_t *octets = handle;
  while (length > 0 && octets[length - 1] == 0) length--;
  return length == 0;
}

static int messages(void) {
  static kf_exchange exchange;
  static kf_order order;
  static kf_enrolment enrolment;
  static uint8_t message[KF_MESSAGE_OCTETS], memory[64];
  kf_request request;
  uint8_t pin[KF_PUBLIC_KEY_OCTETS], act;
  static const uint8_t no_key[KF_PUBLIC_KEY_OCTETS];
  size_t length = 0;
  kf_est est = {"pumps", "pump-7", (const uint8_t *)"code", 4, memory, sizeof memory, {0}, KF_PRODUCTION, 0, 0};
  SAYS(kf_identity_make(&device, KF_PRODUCTION), KF_OK);
  SAYS(kf_identity_public_key(&device, KF_CANDIDATE, pin), KF_OK);
  SAYS(kf_exchange_begin(&exchange, &device, 3, pin, message, &length), KF_ARGUMENT);
  SAYS(kf_exchange_begin(&exchange, &device, KF_DELIVERY, no_key, message, &length), KF_MALFORMED); /* no public key */
  SAYS(kf_exchange_begin(&exchange, &device, KF_DELIVERY, pin, message, &length), KF_OK);
  SAYS(kf_exchange_step(&exchange, &device, pin, sizeof pin, message, &length), KF_MISSING); /* no identity in use */
  SAYS(kf_exchange_session_key(&exchange, "x", KF_KEY_AES_128_CCM, message, &length), KF_STATE);
  CHECK(!is_wiped(&exchange, sizeof exchange));
  kf_exchange_end(&exchange);
  CHECK(is_wiped(&exchange, sizeof exchange));
  SAYS(kf_exchange_step(&exchange, &device, pin, 1, message, &length), KF_STATE);
  SAYS(kf_order_accept(&order, &device, pin, message, 3, 0, &act), KF_MALFORMED);
  SAYS(kf_pin_take_up(&device, 3, pin, NULL, 0, &act, memory), KF_ARGUMENT); /* what stations pin */
  SAYS(kf_pin_take_up(&device, KF_PIN_ORDER, no_key, NULL, 0, &act, memory), KF_MALFORMED);
  SAYS(kf_pin_take_up(&device, KF_PIN_ORDER, pin, NULL, 4, &act, memory), KF_NULL);
  SAYS(kf_pin_take_up(&device, KF_PIN_ORDER, pin, message, sizeof message, &act, memory), KF_OK); /* no links */
  CHECK(act == 0);
  SAYS(kf_order_wipe(&order, &device, 0, message, &length, &act), KF_STATE);
  SAYS(kf_wipe_report(&device, message, &length), KF_MISSING);
  SAYS(kf_order_factory_reset(&order, &device, 0, message, &length, &act), KF_STATE);
  SAYS(kf_reset_report(&device, message, &length), KF_MISSING);
  est.label = "no/label";
  SAYS(kf_enrolment_begin(&enrolment, &device, &est), KF_ARGUMENT);
  est.label = "pumps";
  est.code_length = 200;
  SAYS(kf_enrolment_begin(&enrolment, &device, &est), KF_LENGTH);
  est.code_length = 4;
  est.authorities = NULL;
  SAYS(kf_enrolment_begin(&enrolment, &device, &est), KF_NULL);
  est.authorities = memory;
  SAYS(kf_enrolment_answer(&enrolment, &device, 0, 200, KF_NO_RETRY_AFTER, NULL, 0), KF_STATE);
  SAYS(kf_enrolment_begin(&enrolment, &device, &est), KF_OK);
  SAYS(kf_enrolment_next(&enrolment, &device, 0, &request), KF_OK);
  CHECK(request.what == KF_SEND && request.method == KF_GET && strcmp(request.path, "/.well-known/est/pumps/cacerts") == 0);
  memset(message, 'A', sizeof message);
  SAYS(kf_enrolment_answer(&enrolment, &device, 0, 200, KF_NO_RETRY_AFTER, message, 100), KF_BUFFER);
  SAYS(kf_enrolment_answer(&enrolment, &device, 0, 200, KF_NO_RETRY_AFTER, message, 40), KF_STATE); /* nobody asked */
  SAYS(kf_enrolment_next(&enrolment, &device, 0, &request), KF_OK);
  CHECK(request.what == KF_WAIT && request.until > 0);
  SAYS(kf_enrolment_next(&enrolment, &device, request.until, &request), KF_OK);
  CHECK(request.what == KF_SEND);
  SAYS(kf_enrolment_answer(&enrolment, &device, 0, 200, KF_NO_RETRY_AFTER, message, 40), KF_MALFORMED);
  kf_enrolment_end(&enrolment);
  return 0;
}

static int counters_and_the_end(void) {
  static kf_sealer sealer;
  static kf_ratchet ratchet;
  kf_hooks counting = hooks;
  uint8_t key[32], erasure = 0;
  size_t length;
  uint32_t position = 9;
  counting.counter = count;
  counting.revoke = revoke;
  SAYS(kf_crypto_erase(&device, &erasure), KF_BOARD);
  kf_stop(&device);
  SAYS(kf_test_noise(&device), KF_STATE);
  SAYS(kf_start(&device, &counting, &board), KF_OK);
  ticks = 0;
  SAYS(kf_sealer_begin(&sealer, &device, "telemetry", KF_AES_128_CCM), KF_COUNTER_BACK); /* 1 was used before */
  SAYS(kf_sealer_begin(&sealer, &device, "telemetry", KF_AES_128_CCM), KF_OK);
  fails_counter = 1;
  SAYS(kf_sealer_begin(&sealer, &device, "telemetry", KF_AES_128_CCM), KF_COUNTER_HOOK);
  SAYS(kf_ratchet_load(&ratchet, &device), KF_MISSING);
  SAYS(kf_ratchet_begin(&ratchet, &device, &erasure), KF_OK);
  CHECK(erasure == KF_ERASED_READ_BACK);
  SAYS(kf_device_key_place(&device, &(kf_key_place){{0}, 0, 0}), KF_MISSING); /* the ratchet has taken its place */
  SAYS(kf_ratchet_advance(&ratchet, &device, 3, &erasure), KF_OK);
  SAYS(kf_ratchet_advance(&ratchet, &device, 3, &erasure), KF_NOT_AHEAD);
  SAYS(kf_ratchet_position(&ratchet, &position), KF_STATE); /* to be loaded again */
  SAYS(kf_ratchet_load(&ratchet, &device), KF_OK);
  SAYS(kf_ratchet_advance(&ratchet, &device, UINT32_MAX, &erasure), KF_TOO_FAR);
  SAYS(kf_ratchet_load(&ratchet, &device), KF_OK);
  SAYS(kf_ratchet_position(&ratchet, &position), KF_OK);
  CHECK(position == 3);
  SAYS(kf_ratchet_session_key(&ratchet, NULL, 0, "telemetry", 99, key, &length), KF_ARGUMENT);
  SAYS(kf_ratchet_session_key(&ratchet, NULL, 0, "telemetry", KF_KEY_AES_128_CCM, key, &length), KF_OK);
  CHECK(length == 16);
  kf_ratchet_end(&ratchet);
  SAYS(kf_destroy(&device, 7, &erasure), KF_ARGUMENT);
  SAYS(kf_destroy(&device, KF_RATCHET_KEY, &erasure), KF_OK);
  CHECK(erasure == KF_ERASED_READ_BACK);
  lies_about_revocation = 1;
  SAYS(kf_crypto_erase(&device, &erasure), KF_STILL_UNWRAPS);
  is_revoked = lies_about_revocation = 0;
  SAYS(kf_crypto_erase(&device, &erasure), KF_OK);
  CHECK(erasure == KF_CRYPTO_ERASED);
  SAYS(kf_identity_make(&device, KF_PRODUCTION), KF_CHIP_HOOK);
  fails_flash = 1;
  SAYS(kf_record_put(&device, 0x1000, key, sizeof key), KF_FLASH_HOOK);
  fails_flash = 0;
  SAYS(kf_record_put(&device, 0x1000, key, sizeof key), KF_START_AGAIN);
  SAYS(kf_start(&device, &hooks, &board), KF_OK);
  forgets = 1; /* worn-out cells */
  SAYS(kf_record_put(&device, 0x1000, key, sizeof key), KF_NOT_TAKEN);
  kf_stop(&device);
  kf_stop(&device);
  kf_stop(NULL);
  return 0;
}

int main(void) {
  CHECK(strcmp(kf_status_text(77), "unknown") == 0);
  if (starting() != 0 || noise_and_records() != 0 || protected_and_roots() != 0 || keys() != 0 || messages() != 0 || counters_and_the_end() != 0) return 1;
  printf("all refused\n");
  return 0;
}
