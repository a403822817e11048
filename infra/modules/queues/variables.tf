variable "name" {
  description = "First part of every queue's name."
  type        = string
}

variable "queues" {
  description = <<-TEXT
    The ingest queues by name. In a FIFO queue a message that fails sends the later messages of its group back with it, and
    each of those returns counts as a receive: `max_receive_count` is large, so that an outage, or a bad message in front,
    does not push good messages into the dead-letter queue.
  TEXT
  type = map(object({
    fifo              = bool
    max_receive_count = optional(number, 100)
  }))
  validation {
    condition     = alltrue([for queue in values(var.queues) : queue.max_receive_count >= 10 && queue.max_receive_count <= 1000])
    error_message = "max_receive_count is from 10 to 1000, where SQS ends."
  }
}

variable "wakeup_queues" {
  description = "Names of queues that the metadata nodes tell of commits, for consumers that sleep until then."
  type        = set(string)
  default     = []
  validation {
    condition     = length(setintersection(var.wakeup_queues, keys(var.queues))) == 0 && !contains(concat(tolist(var.wakeup_queues), keys(var.queues)), "maintenance")
    error_message = "A queue is for ingestion or for wake-ups, and `maintenance` is taken."
  }
}

variable "visibility_timeout_seconds" {
  description = "How long a message is hidden while it is worked on: six times the time limit of the function, as AWS asks for."
  type        = number
  default     = 180
}

variable "oldest_message_seconds_max" {
  description = "Age of the oldest message that raises an alarm."
  type        = number
  default     = 900
}

variable "alarm_actions" {
  description = "ARNs that are told of an alarm."
  type        = list(string)
  default     = []
}
