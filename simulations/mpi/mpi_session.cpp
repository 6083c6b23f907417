#include "simulations/mpi/mpi_session.h"

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <list>
#include <thread>
#include <vector>

#include "simulations/mpi/patience.h"

namespace fl {
namespace {

using Clock = std::chrono::steady_clock;

/// Elements that one collective call moves at most: MPI counts in int, and each call has its own limit of time.
constexpr std::size_t kBlock = std::size_t{8} << 20U;
constexpr int kTag = 1;
/// For so long a call that is on its way keeps looking without a nap.
constexpr auto kSpin = std::chrono::milliseconds(200);

/// Of our own communicator, whose errors come back as codes.
void check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int size = 0;
  MPI_Error_string(code, text.data(), &size);
  throw RankLost(std::string("MPI refused to ") + what + ": " + std::string(text.data(), static_cast<std::size_t>(size)));
}

}  // namespace

bool MpiSession::launched() {
  // Open MPI, the PMIx of any launcher, and the PMI of Slurm and MPICH.
  const std::array names = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
  return std::any_of(names.begin(), names.end(), [](const char* name) { return std::getenv(name) != nullptr; });
}

class MpiSession::MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator() {
    check(MPI_Comm_dup(MPI_COMM_WORLD, &world_), "copy a communicator");
    check(MPI_Comm_set_errhandler(world_, MPI_ERRORS_RETURN), "return errors");
    MPI_Comm_rank(world_, &rank_);
    MPI_Comm_size(world_, &size_);
    std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
    int length = 0;
    MPI_Get_processor_name(name.data(), &length);
    host_.assign(name.data(), static_cast<std::size_t>(length));
  }
  void free() { MPI_Comm_free(&world_); }

  std::size_t rank() const override { return static_cast<std::size_t>(rank_); }
  std::size_t size() const override { return static_cast<std::size_t>(size_); }
  std::string host() const override { return host_; }

  void post(std::size_t to, Letter letter) override {
    Sending& sending = sending_.emplace_back(std::move(letter));
    check(MPI_Isend(sending.letter.data(), count(sending.letter.size()), MPI_BYTE, static_cast<int>(to), kTag, world_, &sending.request), "send a letter");
  }

  std::optional<Received> poll() override {
    collect_sent();
    int found = 0;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status;
    check(MPI_Improbe(MPI_ANY_SOURCE, kTag, world_, &found, &message, &status), "look for letters");
    if (found == 0) return std::nullopt;
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    Received received{static_cast<std::size_t>(status.MPI_SOURCE), Letter(static_cast<std::size_t>(bytes))};
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Imrecv(received.letter.data(), bytes, MPI_BYTE, &message, &request), "receive a letter");
    await(request, "receive a letter");
    return received;
  }

  bool sending() const override { return !sending_.empty(); }

  void flush() override {
    for (Sending& sending : sending_) await(sending.request, "send a letter");
    sending_.clear();
  }

  void broadcast(std::span<std::byte> bytes) override {
    for (std::size_t first = 0; first < bytes.size(); first += kBlock) {
      const auto block = bytes.subspan(first, std::min(kBlock, bytes.size() - first));
      MPI_Request request = MPI_REQUEST_NULL;
      check(MPI_Ibcast(block.data(), count(block.size()), MPI_BYTE, 0, world_, &request), "send weights to all ranks");
      await(request, "send weights to all ranks");
    }
  }

  void sum(std::span<const std::int64_t> mine, std::span<std::int64_t> total) override {
    for (std::size_t first = 0; first < mine.size(); first += kBlock) {
      const auto block = mine.subspan(first, std::min(kBlock, mine.size() - first));
      MPI_Request request = MPI_REQUEST_NULL;
      std::int64_t* const out = rank_ == 0 ? total.data() + first : nullptr;
      check(MPI_Ireduce(block.data(), out, count(block.size()), MPI_INT64_T, MPI_SUM, 0, world_, &request), "add up over all ranks");
      await(request, "add up over all ranks");
    }
  }

 private:
  struct Sending {
    explicit Sending(Letter bytes) : letter(std::move(bytes)) {}
    Letter letter;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  static int count(std::size_t size) {
    if (size > 0x7FFFFFFFU) throw IoError("an update of " + std::to_string(size) + " bytes has to travel between ranks, and MPI takes 2 GiB at most; run this experiment on one rank");
    return static_cast<int>(size);
  }

  void collect_sent() {
    std::erase_if(sending_, [](Sending& sending) {
      int done = 0;
      check(MPI_Test(&sending.request, &done, MPI_STATUS_IGNORE), "send a letter");
      return done != 0;
    });
  }

  void await(MPI_Request& request, const char* what) {
    const auto begin = Clock::now();
    for (;;) {
      int done = 0;
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), what);
      if (done != 0) return;
      if (gives_up() || Clock::now() - begin > Watch::kSilence) throw RankLost(std::string("a rank did not answer when it was time to ") + what + ": it died, or its machine or the network did");
      // What is long goes in pieces, and each waits until both ends have looked: naps would add up.
      if (Clock::now() - begin < kSpin) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(Patience::kShortest);
      }
    }
  }

  MPI_Comm world_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::string host_;
  std::list<Sending> sending_;  // requests and bytes must stay where they are
};

MpiSession::MpiSession() {
  int level = 0;
  // Without arguments: the program has parsed its own.
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS || level < MPI_THREAD_SERIALIZED) {
    throw IoError("this MPI library lets only one thread use it (MPI_THREAD_SERIALIZED is needed); install another build of it");
  }
  communicator_ = std::make_unique<MpiCommunicator>();
}

MpiSession::~MpiSession() = default;

Communicator& MpiSession::communicator() { return *communicator_; }

MpiSession::Neighbours MpiSession::neighbours(std::size_t workers) const {
  MPI_Comm machine = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
  int self = 0;
  int size = 1;
  MPI_Comm_rank(machine, &self);
  MPI_Comm_size(machine, &size);
  // The number of workers, and a flag for each CPU.
  constexpr int kNumbers = 1 + CPU_SETSIZE;
  std::vector<int> mine(kNumbers, 0);
  mine[0] = static_cast<int>(workers);
  for (const int cpu : allowed_cpus()) mine[static_cast<std::size_t>(1 + cpu)] = 1;
  std::vector<int> all(static_cast<std::size_t>(size * kNumbers), 0);
  MPI_Allgather(mine.data(), kNumbers, MPI_INT, all.data(), kNumbers, MPI_INT, machine);
  MPI_Comm_free(&machine);
  Neighbours neighbours;
  neighbours.self = static_cast<std::size_t>(self);
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(size); ++rank) {
    const int* numbers = all.data() + rank * kNumbers;
    CpuUser& user = neighbours.ranks.emplace_back();
    user.workers = static_cast<std::size_t>(numbers[0]);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (numbers[1 + cpu] != 0) user.cpus.push_back(cpu);
    }
  }
  return neighbours;
}

void MpiSession::finish() {
  communicator_->free();
  communicator_.reset();
  MPI_Finalize();
}

}  // namespace fl
