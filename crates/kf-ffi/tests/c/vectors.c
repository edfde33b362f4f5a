/* Computes every vector through the C interface. */
#include "check.h"
#include "vectors.h"

struct derivation { const char *key; uint8_t level, algorithm; const char *purpose, *context; uint32_t epoch; const char *output; };
struct seal {
  const char *key, *device, *random, *aad, *plaintext, *envelope, *service;
  uint32_t facility_epoch, device_epoch;
  uint8_t sender, algorithm;
  uint32_t boot, counter;
};
static const struct derivation derivations[] = { DERIVATIONS };
static const struct seal seals[] = { SEALS };

static int derive(const struct derivation *v) {
  uint8_t key[32], context[128], derived[32], expected[32];
  size_t length = 0, context_length = unhex(v->context, context), expected_length = unhex(v->output, expected);
  unhex(v->key, key);
  CHECK(kf_derive(key, v->level, v->algorithm, v->purpose, context, context_length, v->epoch, derived, &length) == KF_OK);
  CHECK(length == expected_length && memcmp(derived, expected, length) == 0);
  return 0;
}

static int seal_and_open(const struct seal *v) {
  static uint8_t plaintext[2048], envelope[4096], expected[4096], opened[4096];
  uint8_t key[32], random[16], aad[256];
  size_t aad_length = unhex(v->aad, aad), plain_length = unhex(v->plaintext, plaintext);
  size_t expected_length = unhex(v->envelope, expected), length = 0;
  uint32_t i, boot = 0, counter = 0;
  kf_place place = { {0}, v->facility_epoch, v->device_epoch, v->sender, v->service };
  kf_sealer sealer;
  unhex(v->key, key);
  unhex(v->random, random);
  unhex(v->device, place.device);
  CHECK(kf_hazmat_sealer_begin(&sealer, key, &place, v->algorithm, v->boot, random) == KF_OK);
  for (i = 0; i < v->counter; i++) CHECK(kf_seal(&sealer, NULL, 0, NULL, 0, envelope, sizeof envelope, &length) == KF_OK);
  CHECK(kf_seal(&sealer, plaintext, plain_length, aad, aad_length, envelope, sizeof envelope, &length) == KF_OK);
  CHECK(length == expected_length && memcmp(envelope, expected, length) == 0);
  kf_sealer_wipe(&sealer);
  CHECK(kf_seal(&sealer, NULL, 0, NULL, 0, envelope, sizeof envelope, &length) == KF_STATE);
  CHECK(kf_hazmat_open(key, &place, expected, expected_length, aad, aad_length, opened, sizeof opened, &length, &boot, &counter) == KF_OK);
  CHECK(length == plain_length && memcmp(opened, plaintext, length) == 0 && boot == v->boot && counter == v->counter);
  expected[expected_length - 1] ^= 1;
  CHECK(kf_hazmat_open(key, &place, expected, expected_length, aad, aad_length, opened, sizeof opened, &length, &boot, &counter) == KF_REFUSED);
  return 0;
}

int main(void) {
  size_t i;
  for (i = 0; i < sizeof derivations / sizeof *derivations; i++) CHECK(derive(&derivations[i]) == 0);
  for (i = 0; i < sizeof seals / sizeof *seals; i++) CHECK(seal_and_open(&seals[i]) == 0);
  printf("all agree: %u derivations, %u envelopes\n", (unsigned)(sizeof derivations / sizeof *derivations), (unsigned)(sizeof seals / sizeof *seals));
  return 0;
}
