/* The counters of orders across a factory reset: what was ordered under any key of the former owner's succession is as old afterwards as
 * before, and the next owner begins at 1. Without an argument it says which public key is to be certified; with a certificate it goes on. */
#include "ram_board.h"
#include "orders.h"

static kf_device device;
static uint8_t first[KF_PUBLIC_KEY_OCTETS], next_owner[KF_PUBLIC_KEY_OCTETS];
static uint8_t after_reset[sizeof board_cells];

static kf_status accepts(kf_order *order, const uint8_t pin[KF_PUBLIC_KEY_OCTETS], const char *message, uint8_t *act) {
  uint8_t octets[KF_MESSAGE_OCTETS];
  size_t length = unhex(message, octets);
  return kf_order_accept(order, &device, pin, octets, length, 0, act);
}

/* An order to do anything, obeyed or not: one to rotate spends its counter by that. */
static kf_status says_to(const uint8_t pin[KF_PUBLIC_KEY_OCTETS], const char *message) {
  static kf_order order;
  uint8_t act;
  kf_status status = accepts(&order, pin, message, &act);
  kf_order_end(&order);
  return status;
}

static kf_status take_up(const char *link, uint8_t *taken, uint8_t fingerprint[32]) {
  uint8_t octets[KF_MESSAGE_OCTETS];
  size_t length = unhex(link, octets);
  return kf_pin_take_up(&device, KF_PIN_ORDER, first, octets, length, taken, fingerprint);
}

static int live_and_be_reset(const char *certificate) {
  static kf_order order;
  uint8_t octets[KF_CERTIFICATE_OCTETS], report[KF_MESSAGE_OCTETS], fingerprint[32], act, erasure;
  size_t length = unhex(certificate, octets);
  SAYS(kf_identity_certify(&device, octets, length), KF_OK);
  SAYS(kf_identity_adopt(&device, &erasure), KF_OK);
  SAYS(says_to(first, ROTATE_4_BY_FIRST), KF_OK);
  SAYS(take_up(FIRST_TO_SECOND, &act, fingerprint), KF_OK);
  CHECK(act == 1);
  SAYS(says_to(first, WITHHELD_5_BY_FIRST), KF_UNPINNED_SERVER); /* its successor is obeyed now */
  SAYS(says_to(first, ROTATE_6_BY_SECOND), KF_OK);
  SAYS(accepts(&order, first, RESET_7_BY_SECOND, &act), KF_OK);
  CHECK(act == KF_FACTORY_RESET);
  SAYS(kf_order_wipe(&order, &device, 0, report, &length, &erasure), KF_STATE); /* another act; the order stays */
  SAYS(kf_order_factory_reset(&order, &device, 0, report, &length, &erasure), KF_OK);
  CHECK(erasure == KF_ERASED_READ_BACK);
  SAYS(kf_order_factory_reset(&order, &device, 0, report, &length, &erasure), KF_MISSING); /* no identity any more */
  kf_order_end(&order);
  SAYS(kf_reset_report(&device, octets, &length), KF_OK);
  CHECK(memcmp(octets, report, length) == 0);
  print_hex("report", report, length);
  kf_stop(&device);
  memcpy(after_reset, board_cells, sizeof after_reset);
  return 0;
}

/* The memory as the reset left it, after a loss of power. */
static int again(void) {
  kf_stop(&device);
  memcpy(board_cells, after_reset, sizeof after_reset);
  SAYS(kf_start(&device, &board_hooks, &board_facts), KF_OK);
  return 0;
}

static int former_owner(void) {
  uint8_t taken, fingerprint[32], expected[32];
  CHECK(again() == 0);
  unhex(FINGERPRINT_OF_FIRST, expected);
  SAYS(kf_pin_take_up(&device, KF_PIN_ORDER, first, NULL, 0, &taken, fingerprint), KF_OK);
  CHECK(memcmp(fingerprint, expected, sizeof expected) == 0); /* the reset took the successor along */
  SAYS(says_to(first, ROTATE_4_BY_FIRST), KF_REPLAYED);
  SAYS(says_to(first, WITHHELD_5_BY_FIRST), KF_REPLAYED);
  SAYS(take_up(FIRST_TO_SECOND, &taken, fingerprint), KF_OK);
  CHECK(taken == 1);
  SAYS(says_to(first, ROTATE_6_BY_SECOND), KF_REPLAYED);
  SAYS(says_to(first, RESET_7_BY_SECOND), KF_REPLAYED);
  CHECK(again() == 0);
  SAYS(take_up(FIRST_TO_THIRD, &taken, fingerprint), KF_OK); /* a key that the device has never held */
  SAYS(says_to(first, WIPE_5_BY_THIRD), KF_REPLAYED);
  CHECK(again() == 0);
  SAYS(says_to(first, ROTATE_8_BY_FIRST), KF_OK);
  SAYS(says_to(first, ROTATE_8_BY_FIRST), KF_REPLAYED);
  return 0;
}

static int next_one(void) {
  uint8_t report[KF_MESSAGE_OCTETS];
  size_t length;
  CHECK(again() == 0);
  SAYS(says_to(next_owner, ROTATE_1_BY_NEXT), KF_OK);
  SAYS(says_to(next_owner, ROTATE_1_BY_NEXT), KF_REPLAYED);
  SAYS(kf_reset_told(&device), KF_OK);
  SAYS(kf_reset_report(&device, report, &length), KF_MISSING);
  SAYS(says_to(first, WITHHELD_5_BY_FIRST), KF_REPLAYED); /* nor later */
  kf_stop(&device);
  return 0;
}

int main(int count, char **arguments) {
  uint8_t key[KF_PUBLIC_KEY_OCTETS];
  unhex(FIRST, first);
  unhex(NEXT, next_owner);
  memset(board_cells, 0xff, sizeof board_cells);
  SAYS(kf_format(&board_hooks, &board_facts), KF_OK);
  SAYS(kf_start(&device, &board_hooks, &board_facts), KF_OK);
  SAYS(kf_identity_make(&device, KF_PRODUCTION), KF_OK);
  SAYS(kf_identity_public_key(&device, KF_CANDIDATE, key), KF_OK);
  if (count < 2) {
    print_hex("key", key, sizeof key); /* the same in each run: so is the noise */
    return 0;
  }
  if (live_and_be_reset(arguments[1]) != 0 || former_owner() != 0 || next_one() != 0) return 1;
  printf("as old as before\n");
  return 0;
}
