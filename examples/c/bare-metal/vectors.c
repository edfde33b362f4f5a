/* Computes what the host asks for, so that the host can hold the C library on this processor against the published vectors.
 * A request is an operation octet and fields; an answer is a status octet, 0 for success, and the result. */
#include <string.h>

#include "board.h"
#include "keyfleet.h"

static uint8_t request[LINE_FRAME_OCTETS], result[LINE_FRAME_OCTETS];

#define REFUSED SIZE_MAX
#define REQUIRE(condition) \
  do { if (!(condition)) return REFUSED; } while (0)

/* The next field as a text of at most 63 octets. */
static const char *field_text(fields *frame, char text[64]) {
  size_t length;
  const uint8_t *field = field_next(frame, &length);
  if (field == NULL || length > 63) return NULL;
  memcpy(text, field, length);
  text[length] = '\0';
  return text;
}

typedef kf_status derivation(const uint8_t *, uint8_t, uint8_t, const char *, const uint8_t *, size_t, uint32_t, uint8_t *,
                             size_t *);

/* key, level, algorithm, purpose, context, epoch: answers with the length of `info`, `info`, and the key. */
static size_t step(fields *frame, derivation *derive) {
  char text[64];
  uint8_t derived[32];
  size_t context_length, info_length, length;
  const uint8_t *key, *level, *algorithm, *context, *epoch;
  const char *purpose;
  REQUIRE((key = field_of(frame, 32)) != NULL && (level = field_of(frame, 1)) != NULL);
  REQUIRE((algorithm = field_of(frame, 1)) != NULL && (purpose = field_text(frame, text)) != NULL);
  REQUIRE((context = field_next(frame, &context_length)) != NULL && (epoch = field_of(frame, 4)) != NULL);
  REQUIRE(kf_info(*level, *algorithm, purpose, context, context_length, number_at(epoch), result + 1, &info_length) == KF_OK);
  REQUIRE(derive(key, *level, *algorithm, purpose, context, context_length, number_at(epoch), derived, &length) == KF_OK);
  result[0] = (uint8_t)info_length;
  memcpy(result + 1 + info_length, derived, length);
  return 1 + info_length + length;
}

static size_t extract(fields *frame) {
  size_t salt_length, input_length;
  const uint8_t *salt, *input;
  REQUIRE((salt = field_next(frame, &salt_length)) != NULL && (input = field_next(frame, &input_length)) != NULL);
  REQUIRE(kf_extract(salt, salt_length, input, input_length, result) == KF_OK);
  return 32;
}

static size_t hmac(fields *frame) {
  size_t length;
  const uint8_t *key, *message;
  REQUIRE((key = field_of(frame, 32)) != NULL && (message = field_next(frame, &length)) != NULL);
  REQUIRE(kf_hmac_sha256(key, message, length, result) == KF_OK);
  return 32;
}

/* device key, device, facility epoch, device epoch, sender, service. */
static const uint8_t *place_of(fields *frame, kf_place *place, char service[64]) {
  const uint8_t *key, *device, *facility_epoch, *device_epoch, *sender;
  if ((key = field_of(frame, 32)) == NULL || (device = field_of(frame, 16)) == NULL) return NULL;
  if ((facility_epoch = field_of(frame, 4)) == NULL || (device_epoch = field_of(frame, 4)) == NULL) return NULL;
  if ((sender = field_of(frame, 1)) == NULL || field_text(frame, service) == NULL) return NULL;
  memcpy(place->device, device, 16);
  place->facility_epoch = number_at(facility_epoch);
  place->device_epoch = number_at(device_epoch);
  place->sender = *sender;
  place->service = service;
  return key;
}

/* The place, algorithm, boot number, boot random, counter, additional data, plaintext: answers with the envelope. */
static size_t seal(fields *frame) {
  static kf_sealer sealer;
  char service[64];
  kf_place place;
  const uint8_t *key, *algorithm, *boot, *random, *counter, *aad, *plaintext;
  size_t aad_length, plaintext_length, length;
  uint32_t i;
  REQUIRE((key = place_of(frame, &place, service)) != NULL && (algorithm = field_of(frame, 1)) != NULL);
  REQUIRE((boot = field_of(frame, 4)) != NULL && (random = field_of(frame, 16)) != NULL);
  REQUIRE((counter = field_of(frame, 4)) != NULL && (aad = field_next(frame, &aad_length)) != NULL);
  REQUIRE((plaintext = field_next(frame, &plaintext_length)) != NULL && number_at(counter) <= 1000);
  REQUIRE(kf_hazmat_sealer_begin(&sealer, key, &place, *algorithm, number_at(boot), random) == KF_OK);
  for (i = 0; i < number_at(counter); i++) {
    REQUIRE(kf_seal(&sealer, NULL, 0, NULL, 0, result, sizeof result, &length) == KF_OK);
  }
  REQUIRE(kf_seal(&sealer, plaintext, plaintext_length, aad, aad_length, result, sizeof result, &length) == KF_OK);
  kf_sealer_wipe(&sealer);
  return length;
}

/* The place, additional data, envelope: answers with the plaintext. */
static size_t open(fields *frame) {
  char service[64];
  kf_place place;
  const uint8_t *key, *aad, *envelope;
  size_t aad_length, envelope_length, length;
  uint32_t boot, counter;
  REQUIRE((key = place_of(frame, &place, service)) != NULL && (aad = field_next(frame, &aad_length)) != NULL);
  REQUIRE((envelope = field_next(frame, &envelope_length)) != NULL);
  REQUIRE(kf_hazmat_open(key, &place, envelope, envelope_length, aad, aad_length, result, sizeof result, &length, &boot,
                         &counter) == KF_OK);
  return length;
}

static size_t compute(uint8_t operation, fields *frame) {
  switch (operation) {
    case 1: return step(frame, kf_derive);
    case 2: return step(frame, kf_derive_counter_mode);
    case 3: return extract(frame);
    case 4: return hmac(frame);
    case 5: return seal(frame);
    case 6: return open(frame);
    default: return REFUSED;
  }
}

int main(void) {
  line_open();
  for (;;) {
    size_t length = line_receive(request, sizeof request);
    uint8_t status = 2; /* unknown */
    size_t octets = REFUSED;
    if (length != LINE_TOO_LONG && length > 0 && request[0] >= 1 && request[0] <= 6) {
      fields frame = {request + 1, length - 1};
      octets = compute(request[0], &frame);
      status = octets == REFUSED ? 1 : 0;
    }
    if (octets == REFUSED) octets = 0;
    line_begin(1 + octets);
    line_write(&status, 1);
    line_write(result, octets);
  }
}
